package raft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func singleConfig() Config {
	return Config{ID: 1, ClusterID: 7, NewLog: BootstrapNewLog, ConfState: EncodeConfState([]uint64{1}, nil)}
}

func openSingle(t testing.TB, l *fakeLog, sm StateMachine) *Node {
	t.Helper()
	n, err := Open(singleConfig(), l.open, sm)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func waitResult(t testing.TB, w *fakeWaiter) string {
	t.Helper()
	select {
	case <-w.done:
		return w.result()
	case <-time.After(10 * time.Second):
		t.Fatalf("waiter of %q: never told", w.op)
		return ""
	}
}

func TestSingleVoterProposes(t *testing.T) {
	l, sm := newFakeLog(true), newModel(1)
	n := openSingle(t, l, sm)
	for i := range 100 {
		w := newWaiter(fmt.Sprint("op", i))
		if err := n.Propose([]byte(w.op), w); err != nil {
			t.Fatal(err)
		}
		if got := waitResult(t, w); got != "applied" {
			t.Fatal(got)
		}
	}
	if !n.ReadIndex(newReader()) {
		t.Error("a single voter that has committed must read at once")
	}
	s := n.Status()
	if !s.IsLeader || s.Lead != 1 || s.Term != 2 || s.Applied != 102 || s.PendingOps != 0 {
		t.Errorf("status %+v", s)
	}
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := n.Propose([]byte("x"), nil); !errors.Is(err, ErrStopped) {
		t.Errorf("after Stop: %v", err)
	}
	// A restart without a checkpoint replays everything.
	sm2 := newModel(1)
	n2, err := Open(Config{ID: 1, ClusterID: 7}, l.crash(0).open, sm2)
	if err != nil {
		t.Fatal(err)
	}
	r := newReader()
	if !n2.ReadIndex(r) {
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
	}
	if got := sm2.snapshotOps(); len(got) != 100 || got[99] != "op99" {
		t.Errorf("replayed %d operations", len(got))
	}
	n2.Stop(context.Background())
}

func TestManyProposers(t *testing.T) {
	l, sm := newFakeLog(true), newModel(1)
	n := openSingle(t, l, sm)
	const clients, each = 50, 200
	var wg sync.WaitGroup
	for c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				w := newWaiter(opName(c, i))
				if err := n.Propose([]byte(w.op), w); err != nil {
					t.Error(err)
					return
				}
				if got := waitResult(t, w); got != "applied" {
					t.Error(got)
					return
				}
			}
		}()
	}
	wg.Wait()
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(sm.ops) != clients*each {
		t.Errorf("%d operations applied, want %d", len(sm.ops), clients*each)
	}
	t.Logf("%d entries, %d writes, %d groups", sm.applied.index, l.writes, sm.groups)
}
