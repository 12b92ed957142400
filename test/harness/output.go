package harness

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// tailLines is how much of a server's log a failed test shows.
const tailLines = 40

// Output collects what a process writes and lets a test wait for a text. It keeps everything: a test's server writes
// some hundred lines.
type Output struct {
	mu struct {
		sync.Mutex
		text   bytes.Buffer
		grown  chan struct{} // closed and replaced at each write
		closed bool          // the process has ended
	}
}

func newOutput() *Output {
	o := &Output{}
	o.mu.grown = make(chan struct{})
	return o
}

// Write appends p; it is the process's standard error.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.text.Write(p)
	o.wakeLocked()
	return len(p), nil
}

func (o *Output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.closed = true
	o.wakeLocked()
}

func (o *Output) wakeLocked() {
	close(o.mu.grown)
	o.mu.grown = make(chan struct{})
}

// String is everything written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.text.String()
}

// Wait blocks until text was written. It is false when the time is over or the process has ended without it.
func (o *Output) Wait(text string, limit time.Duration) bool {
	deadline := time.After(limit)
	for {
		o.mu.Lock()
		found, closed, grown := bytes.Contains(o.mu.text.Bytes(), []byte(text)), o.mu.closed, o.mu.grown
		o.mu.Unlock()
		if found || closed {
			return found
		}
		select {
		case <-grown:
		case <-deadline:
			return false
		}
	}
}

// Lines are the log lines written so far, as JSON objects; a line that is none has the one field "raw".
func (o *Output) Lines() []map[string]any {
	var lines []map[string]any
	for line := range strings.Lines(o.String()) {
		fields := map[string]any{}
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			fields = map[string]any{"raw": strings.TrimRight(line, "\n")}
		}
		lines = append(lines, fields)
	}
	return lines
}

// tail is the end of the text, for the output of a failed test.
func (o *Output) tail() string {
	lines := strings.Split(strings.TrimRight(o.String(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
