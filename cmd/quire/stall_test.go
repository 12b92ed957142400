package main

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestStallWatch: a stall is counted and told once, /readyz fails while it lasts,
// and what never ends ends the process.
func TestStallWatch(t *testing.T) {
	core, lines := observer.New(zap.WarnLevel)
	var died error
	s := &stallWatch{log: zap.New(core), limit: time.Second, die: func(err error) { died = err }}
	for _, step := range []struct {
		age          time.Duration
		stalls       bool
		count, lines int
		dies         bool
	}{
		{0, false, 0, 0, false},
		{900 * time.Millisecond, false, 0, 0, false},
		{1100 * time.Millisecond, true, 1, 1, false},
		{5 * time.Second, true, 1, 1, false},
		{0, false, 1, 2, false},
		{2 * time.Second, true, 2, 3, false},
		{32 * time.Second, true, 2, 3, true},
	} {
		s.look(step.age)
		if got := s.check() != nil; got != step.stalls {
			t.Errorf("%v: check says %v", step.age, s.check())
		}
		if int(s.count.Load()) != step.count || lines.Len() != step.lines || (died != nil) != step.dies {
			t.Errorf("%v: %d stalls, %d lines, died %v", step.age, s.count.Load(), lines.Len(), died)
		}
	}
}
