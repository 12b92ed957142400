package main

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// sinkBytes bounds the lines that wait for a slow output. At a few hundred
	// bytes a line this is some ten thousand lines; more would only delay the
	// moment at which somebody notices.
	sinkBytes = 4 << 20
	// sinkSyncWait bounds how long an exit waits for the output.
	sinkSyncWait = 500 * time.Millisecond
)

// asyncSink is a zapcore.WriteSyncer that never makes its caller wait for the
// output: lines gather in a buffer that one goroutine writes; when it is full,
// lines are dropped and counted.
type asyncSink struct {
	out    io.Writer
	report func(dropped uint64) // logs the count once there is room again

	mu struct {
		sync.Mutex
		buf     []byte
		spare   []byte
		writing bool
		closed  bool
		dropped uint64
	}
	work    chan struct{} // cap 1: there is something to write
	done    chan struct{}
	dropped atomic.Uint64 // since the start, for the metric
}

func newAsyncSink(out io.Writer) *asyncSink {
	s := &asyncSink{out: out, work: make(chan struct{}, 1), done: make(chan struct{})}
	go s.run()
	return s
}

// Write implements zapcore.WriteSyncer. It takes a whole line or drops it.
func (s *asyncSink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed || len(s.mu.buf)+len(p) > sinkBytes {
		s.mu.dropped++
		s.dropped.Add(1)
		return len(p), nil
	}
	s.mu.buf = append(s.mu.buf, p...)
	s.signal()
	return len(p), nil
}

func (s *asyncSink) signal() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// Sync implements zapcore.WriteSyncer: it waits, for a bounded time, until
// what was written before is out.
func (s *asyncSink) Sync() error {
	deadline := time.Now().Add(sinkSyncWait)
	for time.Now().Before(deadline) {
		s.mu.Lock()
		empty := len(s.mu.buf) == 0 && !s.mu.writing
		s.mu.Unlock()
		if empty {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// run is the writer's goroutine.
func (s *asyncSink) run() {
	defer close(s.done)
	for range s.work {
		for s.writeOnce() {
		}
		s.mu.Lock()
		closed, dropped := s.mu.closed, s.mu.dropped
		s.mu.dropped = 0
		s.mu.Unlock()
		if dropped > 0 && s.report != nil && !closed {
			s.report(dropped)
		}
		if closed {
			return
		}
	}
}

// writeOnce writes what has gathered and reports whether there was anything.
func (s *asyncSink) writeOnce() bool {
	s.mu.Lock()
	buf := s.mu.buf
	if len(buf) == 0 {
		s.mu.Unlock()
		return false
	}
	s.mu.buf, s.mu.spare = s.mu.spare[:0], nil
	s.mu.writing = true
	s.mu.Unlock()
	_, _ = s.out.Write(buf) // a log that cannot be written cannot say so
	s.mu.Lock()
	s.mu.spare = buf
	s.mu.writing = false
	s.mu.Unlock()
	return true
}

// close writes out what is queued, for a bounded time.
func (s *asyncSink) close() {
	s.mu.Lock()
	s.mu.closed = true
	s.signal()
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-time.After(sinkSyncWait):
	}
}
