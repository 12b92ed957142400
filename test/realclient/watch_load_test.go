package realclient

import (
	"bytes"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestWatchFragments(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	const puts = 10
	for i := range puts {
		mustPut(t, s.kv, &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), Value: bytes.Repeat([]byte{'v'}, 1<<20)})
	}
	w := s.openWatch(t)
	r := watchFrom("k", "l", 2)
	r.Fragment = true
	w.create(r)
	var evs []*mvccpb.Event
	fragments := 0
	for len(evs) < puts {
		resp := w.next()
		evs = append(evs, resp.Events...)
		if resp.Fragment {
			fragments++
			equal(t, "a fragment is not the last", len(evs) < puts, true)
		}
		size := 0
		for _, e := range resp.Events {
			size += len(e.Kv.Value)
		}
		equal(t, "size of a fragment is within the limit", size <= 2<<20, true)
	}
	for i, e := range evs {
		equal(t, "order", e.Kv.ModRevision, int64(i+2))
	}
	t.Logf("%d events in %d fragments and a last response each", puts, fragments)
}

func TestWatchFragmentsOfOneRevision(t *testing.T) {
	t.Parallel()
	// Each of the two puts of one txn is small enough, both together are not: a fragmenting watcher gets them apart, marked.
	s := startServer(t, "--max-request-bytes", fmt.Sprint(8<<20))
	w, whole := s.openWatch(t), s.openWatch(t)
	r := watchKey("k", "l")
	r.Fragment = true
	w.create(r)
	whole.create(watchKey("k", "l"))
	big := func(key string) *pb.RequestOp {
		return opPut(&pb.PutRequest{Key: []byte(key), Value: make([]byte, 3<<20), PrevKv: true})
	}
	mustTxn(t, s.kv, then(big("k1"), big("k2")))
	one := whole.next()
	equal(t, "without fragments", len(one.Events), 2)
	equal(t, "nothing is marked", one.Fragment, false)
	total := 0
	for total < 2 {
		resp := w.next()
		total += len(resp.Events)
		equal(t, "marked unless last", resp.Fragment, total < 2)
	}
}

// TestWatchManyOnOneStream runs 300 watchers on one stream, of which every second is cancelled while events flow.
func TestWatchManyOnOneStream(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	const watchers, rounds = 300, 20
	w := s.openWatch(t)
	for i := range watchers {
		r := watchKey(fmt.Sprintf("k%d", i%10), "")
		r.PrevKv = true
		equal(t, "id", w.create(r), int64(i))
	}
	go func() {
		for i := range rounds {
			for k := range 10 {
				_, _ = s.kv.Put(s.ctx, put(fmt.Sprintf("k%d", k), fmt.Sprint(i)))
			}
		}
	}()
	go func() {
		for i := 0; i < watchers; i += 2 {
			_ = w.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: int64(i)}}})
		}
	}()
	seen := make([]int, watchers)
	canceled := make([]bool, watchers)
	complete := 0
	for complete < watchers {
		resp := w.next()
		id := resp.WatchId
		if resp.Canceled {
			if canceled[id] || id%2 == 1 {
				t.Fatalf("unexpected: %s", watchText(resp))
			}
			canceled[id] = true
			complete++
			continue
		}
		for _, e := range resp.Events {
			if want := fmt.Sprint(seen[id]); string(e.Kv.Value) != want {
				t.Fatalf("watcher %d got value %s, expected %s", id, e.Kv.Value, want)
			}
			seen[id]++
		}
		if id%2 == 1 && seen[id] == rounds {
			complete++
		}
	}
}

func TestWatchTwoOnTheSameKeyBothGetEverything(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	w.create(watchKey("k", ""))
	w.create(watchKey("a", "z"))
	mustPut(t, s.kv, put("k", "1"))
	got := map[string]bool{watchText(w.next()): true, watchText(w.next()): true}
	equal(t, "first", got["id 0: put k=1(2,2,1)"], true)
	equal(t, "second", got["id 1: put k=1(2,2,1)"], true)
}

// slowHistory writes 24 MiB while nobody reads the stream: more than any buffer on the way holds.
func slowHistory(t *testing.T, s *server) (last int64) {
	t.Helper()
	value := make([]byte, 64<<10)
	for range 384 {
		last = mustPut(t, s.kv, &pb.PutRequest{Key: []byte("k"), Value: value})
	}
	return last
}

func TestWatchSlowReaderMissesNothing(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openHeldWatch(t, s.ctx)
	for range 2 {
		w.send(watchKey("k", ""))
		_, err := w.rpc.Recv() // that it is created
		check(t, err)
	}
	last := slowHistory(t, s)
	close(w.hold)
	next := map[int64]int64{0: 2, 1: 2}
	for next[0] <= last || next[1] <= last {
		resp := w.next()
		for _, e := range resp.Events {
			if e.Kv.ModRevision != next[resp.WatchId] {
				t.Fatalf("watcher %d: revision %d, expected %d", resp.WatchId, e.Kv.ModRevision, next[resp.WatchId])
			}
			next[resp.WatchId]++
		}
	}
}

// TestWatchSlowReaderPassedByCompaction: a watcher that compaction has passed is cancelled and told so; it never skips.
func TestWatchSlowReaderPassedByCompaction(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openHeldWatch(t, s.ctx)
	w.send(watchKey("k", ""))
	created, err := w.rpc.Recv()
	check(t, err)
	equal(t, "first", watchText(created), "id 0 created rev 1")
	last := slowHistory(t, s)
	mustCompact(t, s.kv, last)
	close(w.hold)
	next := int64(2)
	for next <= last {
		resp := w.next()
		if resp.Canceled {
			equal(t, "compact revision", resp.CompactRevision, last)
			t.Logf("cancelled after revision %d of %d", next-1, last)
			return
		}
		for _, e := range resp.Events {
			if e.Kv.ModRevision != next {
				t.Fatalf("revision %d, expected %d", e.Kv.ModRevision, next)
			}
			next++
		}
	}
	t.Logf("everything came before the compaction")
}
