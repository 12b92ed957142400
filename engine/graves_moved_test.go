package engine

import (
	"context"
	"fmt"
	"testing"

	pb "quire/api/etcdserverpb"
	"quire/index"
	"quire/pagestore"
)

type stopAfter struct {
	pagestore.ReclaimOwner
	n      int
	cancel func()
}

func (s *stopAfter) Live(b []pagestore.Candidate) {
	if s.n--; s.n == 0 {
		s.cancel()
	}
	s.ReclaimOwner.Live(b)
}

// TestGraveOfHalfMovedRecord: a record that was moved by an interrupted reclaim
// and died afterwards is at its old place again after a restart. It must stay
// dead, however long that segment lives.
func TestGraveOfHalfMovedRecord(t *testing.T) {
	r := newRig(t, 1)
	put := func(key string, n int) {
		r.apply(op(t, OpPut, &pb.PutRequest{Key: []byte(key), Value: make([]byte, n)}))
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	compact := func() {
		rev := r.e.Revision()
		r.apply(op(t, OpCompact, &pb.CompactionRequest{Revision: rev}))
		r.e.compactTo(rev)
	}
	roll := func() {
		r.e.writer.Lock()
		r.e.keys().store.Roll()
		r.e.writer.Unlock()
		check(r.e.Checkpoint())
	}
	for i := range 100 {
		put(fmt.Sprintf("k%02d", i), 300)
	}
	roll()
	ctx, cancel := context.WithCancel(context.Background())
	r.e.keys().store.Reclaim(ctx, pagestore.Budget{Below: 2}, &stopAfter{&reclaimOwner{r.e, r.e.keys()}, 5, cancel})
	r.apply(op(t, OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("k00")}))
	for range 50 {
		put("x", 300)
	}
	for i := range 10 {
		put(fmt.Sprint("y", i), 300)
	}
	compact()
	check(r.e.Checkpoint())
	r.crash()
	alive := func() bool {
		_, ok := r.e.keys().idx.Get([]byte("k00"), index.Newest)
		return ok
	}
	if alive() {
		t.Fatal("k00 is there after the first restart")
	}
	for range 4 { // the segment with the grave is emptied, again and again
		for i := range 10 {
			put(fmt.Sprint("y", i), 300)
		}
		put("x", 300)
		compact()
		roll()
		check(r.e.RunPending())
		roll()
		check(r.e.Checkpoint())
		r.crash()
		if alive() {
			t.Fatal("k00 has come back")
		}
	}
}
