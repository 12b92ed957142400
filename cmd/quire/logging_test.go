package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap"
)

func TestLogLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	c := newConfig()
	newFlagSet(c)
	c.LogOutputs = stringList{name}
	l, err := openLogs(c)
	if err != nil {
		t.Fatal(err)
	}
	l.Named("raft").Info("became leader", zap.Duration("took", time.Second))
	l.Debug("not shown")
	l.Close()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal(raw, &line); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	ts := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d{4})$`)
	if line["level"] != "info" || line["msg"] != "became leader" || line["logger"] != "raft" || line["took"] != "1s" || !ts.MatchString(line["ts"].(string)) {
		t.Errorf("%s", raw)
	}
	if !strings.HasPrefix(line["caller"].(string), "quire/logging_test.go:") {
		t.Errorf("caller %v", line["caller"])
	}
}

// stuckWriter takes nothing until it is released.
type stuckWriter struct {
	release chan struct{}
	mu      sync.Mutex
	bytes.Buffer
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	<-w.release
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Buffer.Write(p)
}

func TestSlowLogOutputDropsAndCounts(t *testing.T) {
	out := &stuckWriter{release: make(chan struct{})}
	sink := newAsyncSink(out)
	reported := make(chan uint64, 10)
	sink.report = func(n uint64) { reported <- n }
	line := []byte(strings.Repeat("x", 1<<20))
	start := time.Now()
	for range 10 {
		if _, err := sink.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("writing to a stuck output took %v", took)
	}
	dropped := sink.dropped.Load()
	if dropped < 2 {
		t.Errorf("dropped %d lines of 10 MiB with room for %d bytes", dropped, sinkBytes)
	}
	close(out.release)
	if n := <-reported; n != dropped {
		t.Errorf("reported %d, dropped %d", n, dropped)
	}
	sink.close()
	if want := (10 - int(dropped)) << 20; out.Len() != want {
		t.Errorf("%d bytes came out, want %d", out.Len(), want)
	}
}

func TestRotation(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	c := newConfig()
	newFlagSet(c)
	c.LogOutputs, c.LogRotation, c.LogRotateJSON = stringList{name}, true, `{"maxsize": 1}`
	l, err := openLogs(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		l.Info(strings.Repeat("x", 100_000))
		_ = l.Sync()
	}
	l.Close()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(name), "log*"))
	if err != nil || len(files) < 3 {
		t.Errorf("files %v, %v", files, err)
	}
}

func TestJournalEntry(t *testing.T) {
	line := []byte(`{"level":"error","ts":"x","caller":"quire/serve.go:7","msg":"m"}` + "\n")
	text, priority, fields := journalEntry(line)
	if text != strings.TrimSuffix(string(line), "\n") || priority != journal.PriErr || fields["PACKAGE"] != "quire" || fields["SYSLOG_IDENTIFIER"] != filepath.Base(os.Args[0]) {
		t.Errorf("%q, %v, %v", text, priority, fields)
	}
	if _, priority, _ := journalEntry([]byte("2026 info console line\n")); priority != journal.PriInfo {
		t.Errorf("a console line has priority %v", priority)
	}
	var fallback bytes.Buffer
	if _, err := (journalWriter{fallback: &fallback}).Write(append(line, line...)); err != nil {
		t.Error(err)
	}
	if !journal.Enabled() && fallback.Len() != 2*len(line) {
		t.Errorf("without a journal, %q is written", fallback.String())
	}
}
