package raft

import "testing"

// TestReadsShareQuestions: a second question is put only for as many reads as the
// first has, or when the first may have been lost.
func TestReadsShareQuestions(t *testing.T) {
	var r readRounds
	if !r.permits(1, 0) {
		t.Fatal("nothing is under way")
	}
	r.asked.push(readRound{seq: 1, asked: 10, waiters: make([]ReadWaiter, 3)})
	for _, tc := range []struct {
		waiting int
		now     uint64
		want    bool
	}{{1, 10, false}, {2, 11, false}, {3, 10, true}, {1, 12, true}} {
		if got := r.permits(tc.waiting, tc.now); got != tc.want {
			t.Errorf("%d waiting at tick %d: %v", tc.waiting, tc.now, got)
		}
	}
	r.asked.push(readRound{seq: 2, asked: 10, waiters: make([]ReadWaiter, 3)})
	if r.permits(100, 100) {
		t.Error("a third question")
	}
	r.confirm(1, 5)
	if r.permits(2, 11) || !r.permits(3, 11) {
		t.Error("the second question is the only one now")
	}
}
