package engine

import (
	"context"
	"fmt"
	"testing"

	"quire/disk"
	"quire/pagestore"

	pb "quire/api/etcdserverpb"
)

// interruptedReclaim takes a checkpoint after each batch of moved records, while
// the segment that they come from is only half empty.
type interruptedReclaim struct {
	*reclaimOwner
	after func()
}

func (o interruptedReclaim) Moved(batch []pagestore.Candidate) {
	o.reclaimOwner.Moved(batch)
	o.after()
}

// TestCheckpointInsideReclaim: a crash after a checkpoint that was cut between
// two batches of a reclaim finds every grave, in its old place or in the new one.
func TestCheckpointInsideReclaim(t *testing.T) {
	r := newRig(t, 1)
	put := func(key string, n int) {
		r.apply(op(t, OpPut, &pb.PutRequest{Key: []byte(key), Value: make([]byte, n)}))
	}
	for i := range 600 {
		put(fmt.Sprintf("keep%03d", i), 20)
		put(fmt.Sprintf("gone%03d", i), 60)
		put("old", 10)
		if i%20 == 19 { // graves come between the records
			rev := r.e.Revision()
			r.apply(op(t, OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("gone"), RangeEnd: []byte("gonf")}))
			r.apply(op(t, OpCompact, &pb.CompactionRequest{Revision: rev + 1}))
			r.e.compactTo(rev + 1)
		}
	}
	r.e.keys().store.Roll()
	if err := r.e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	checks := 0
	owner := interruptedReclaim{&reclaimOwner{r.e, r.e.keys()}, func() {
		if err := r.e.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		checks++
		crashed := &rig{t: t, fs: r.fs.Crash(disk.CrashChoice{Seed: uint64(checks), Fate: disk.DropAll}), log: r.log, index: r.index}
		crashed.open()
		body, _, err := crashed.e.Range(&pb.RangeRequest{Key: []byte("gone"), RangeEnd: []byte("gonf"), CountOnly: true}, nil)
		if err != nil || len(body) != 0 {
			t.Fatalf("after %d batches deleted keys are back: %x %v", checks, body, err)
		}
		if err := crashed.e.Abandon(); err != nil {
			t.Fatal(err)
		}
	}}
	if _, err := r.e.keys().store.Reclaim(context.Background(), pagestore.Budget{Below: 0.99}, owner); err != nil {
		t.Fatal(err)
	}
	if checks < 3 || len(r.e.keys().graves) == 0 {
		t.Fatalf("%d checkpoints inside a reclaim, %d graves: the test shows nothing", checks, len(r.e.keys().graves))
	}
}
