package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Profiles of one window, by the name of their file.
const (
	CPU    = "cpu.pprof"
	Allocs = "allocs.pprof"
	Block  = "block.pprof"
	Mutex  = "mutex.pprof"
	Heap   = "heap.pprof" // what was held at the window's end
)

// windowed are the profiles that cover the window, and what to ask for. With
// seconds, the server answers with the difference over that time.
var windowed = map[string]string{CPU: "profile", Allocs: "allocs", Block: "block", Mutex: "mutex"}

const (
	// MaxWindow keeps a profile's file and the server's overhead bounded.
	MaxWindow = 5 * time.Minute
	maxBody   = 256 << 20
	// slack is how much longer than its window an answer may take.
	slack = 30 * time.Second
)

// Server is where to capture.
type Server struct {
	URL        string // of /debug/pprof, for example http://127.0.0.1:2379
	MetricsURL string // of /metrics; mostly the same
	PID        int    // 0: nothing from /proc and no strace
}

// Families are metrics by name.
type Families = map[string]*dto.MetricFamily

// Window is what was captured over one window.
type Window struct {
	Seconds       float64
	Before, After Families
	ProcBefore    Proc
	ProcAfter     Proc
	Missing       map[string]error // profiles that could not be had
}

// Take captures one window and stores the profiles in dir.
func Take(ctx context.Context, s Server, dir string, window time.Duration) (*Window, error) {
	ctx, cancel := context.WithTimeout(ctx, window+slack)
	defer cancel()
	w := &Window{Missing: map[string]error{}}
	var err error
	if w.Before, err = Metrics(ctx, s.MetricsURL); err != nil {
		return nil, err
	}
	if w.ProcBefore, err = ReadProc(s.PID); err != nil {
		return nil, err
	}
	began := time.Now()
	var mu sync.Mutex
	var fetches sync.WaitGroup
	for file, name := range windowed {
		fetches.Go(func() {
			url := fmt.Sprintf("%s/debug/pprof/%s?seconds=%d", s.URL, name, int(window.Seconds()))
			if err := fetch(ctx, url, filepath.Join(dir, file)); err != nil {
				mu.Lock()
				defer mu.Unlock()
				w.Missing[file] = err
			}
		})
	}
	fetches.Wait()
	w.Seconds = time.Since(began).Seconds()
	if w.ProcAfter, err = ReadProc(s.PID); err != nil {
		return nil, err
	}
	if w.After, err = Metrics(ctx, s.MetricsURL); err != nil {
		return nil, err
	}
	if err := fetch(ctx, s.URL+"/debug/pprof/heap", filepath.Join(dir, Heap)); err != nil {
		w.Missing[Heap] = err
	}
	if w.Missing[CPU] != nil && ctx.Err() == nil {
		return w, fmt.Errorf("no CPU profile; was the server started with --enable-pprof? %w", w.Missing[CPU])
	}
	return w, ctx.Err()
}

// fetch stores the body of url in the file path.
func fetch(ctx context.Context, url, path string) (err error) {
	body, err := get(ctx, url)
	if err != nil {
		return err
	}
	defer body.Close()
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := io.Copy(file, io.LimitReader(body, maxBody)); err != nil {
		return fmt.Errorf("reading %s: %w", url, err)
	}
	return nil
}

func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("%s answered %s", url, res.Status)
	}
	return res.Body, nil
}

// Metrics reads /metrics.
func Metrics(ctx context.Context, url string) (Families, error) {
	body, err := get(ctx, url+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	return families, nil
}
