package capture

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"
)

func TestReadProc(t *testing.T) {
	p, err := readProc(fstest.MapFS{
		"status":        {Data: []byte("Name:\tx\nVmRSS:\t 100 kB\nRssAnon:\t 60 kB\n")},
		"io":            {Data: []byte("read_bytes: 1\nwrite_bytes: 2\n")},
		"task/1/status": {Data: []byte("voluntary_ctxt_switches:\t10\nnonvoluntary_ctxt_switches:\t3\n")},
		"task/2/status": {Data: []byte("voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t1\n")},
	})
	want := Proc{Threads: 2, Voluntary: 15, Involuntary: 4, ReadBytes: 1, WriteBytes: 2, RSSBytes: 100 << 10, AnonBytes: 60 << 10}
	if err != nil || p != want {
		t.Errorf("got %+v, %v\nwant %+v", p, err, want)
	}
	if p, err := ReadProc(0); err != nil || p != (Proc{}) {
		t.Errorf("no process gave %+v, %v", p, err)
	}
	if _, err := ReadProc(1 << 30); err == nil {
		t.Error("a process that is not there gave no error")
	}
}

// server answers like one with pprof, except for what is refused.
func server(t *testing.T, refused string) Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("# TYPE c counter\nc 1\n")) })
	mux.HandleFunc("/debug/pprof/{name}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") == refused {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("profile " + r.PathValue("name") + " " + r.FormValue("seconds")))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return Server{URL: s.URL, MetricsURL: s.URL, PID: os.Getpid()}
}

func TestTake(t *testing.T) {
	dir := t.TempDir()
	w, err := Take(t.Context(), server(t, "mutex"), dir, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Missing) != 1 || w.Missing[Mutex] == nil || w.Before["c"] == nil || w.ProcAfter.Threads == 0 {
		t.Errorf("got %+v", w)
	}
	for file, want := range map[string]string{CPU: "profile profile 2", Allocs: "profile allocs 2", Heap: "profile heap "} {
		if text, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(text) != want {
			t.Errorf("%s has %q, %v; want %q", file, text, err, want)
		}
	}
	if _, err := Take(t.Context(), server(t, "profile"), dir, time.Second); err == nil {
		t.Error("no CPU profile is no failure")
	}
}
