package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	c, err := parse(strings.Fields("-name a -endpoint 127.0.0.1:5 -seconds 3s -- bench -workload put"), io.Discard)
	if err != nil || c.server.URL != "http://127.0.0.1:5" || c.server.MetricsURL != c.server.URL || len(c.load) != 3 {
		t.Errorf("got %+v, %v", c, err)
	}
	_, err = parse(strings.Fields("-name ../a -seconds 1ms -strace -1s"), io.Discard)
	for _, want := range []string{"-name", "-seconds", "-strace"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported in: %v", want, err)
		}
	}
}

// TestRun profiles this very process, which serves pprof and burns CPU.
func TestRun(t *testing.T) {
	var calls atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# TYPE grpc_server_handled_total counter\ngrpc_server_handled_total{grpc_method=\"Put\"} "+strconv.FormatInt(calls.Load(), 10)+"\n")
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for sink := []byte(nil); ; calls.Add(1) {
			select {
			case <-stop:
				return
			default:
				sink = append(sink[:0:0], make([]byte, 1000)...)
			}
		}
	}()
	cfg, err := parse([]string{"-name", "self", "-out", t.TempDir(), "-endpoint", s.URL, "-seconds", "1s", "-warm-up", "0s", "--", "sleep", "1.5"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(cfg.out, "self", summaryFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# self", "under `sleep 1.5`", "calls of Put", "## CPU", "per call", "quire/tools/profile", "Not counted: no -pid"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the summary lacks %q:\n%s", want, text)
		}
	}
	if err := run(t.Context(), cfg); err == nil {
		t.Error("a second run wrote into the first one's folder")
	}
}

func TestALoadThatEndsEarly(t *testing.T) {
	l, err := startLoad([]string{"true"}, filepath.Join(t.TempDir(), "load.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.during(t.Context(), 10*time.Second); err == nil {
		t.Error("the load's end was not noticed")
	}
	if err := l.finish(t.Context(), false); err != nil {
		t.Error(err)
	}
}
