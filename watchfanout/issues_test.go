package watchfanout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "quire/api/etcdserverpb"
)

// Regression tests named for etcd's issues.

// #15220: a manual progress notification overtook events of a watcher that was
// catching up, or whose events were still queued.
func TestIssue15220ProgressOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{ChunkBytes: 100, StreamPendingBytes: 600})
		for i := range 100 {
			r.txn(put("a", fmt.Sprint(i)))
		}
		c := &watcherClient{client: r.open(), r: r, active: map[int64]*watch{}, dead: map[int64]bool{}, opts: r.hub.opts}
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 2})
		c.pending = []*watch{{key: "a", start: 2}}
		for i := range 300 {
			if i%3 == 0 {
				r.txn(put("a", fmt.Sprint(i)))
			}
			if err := c.s.Progress(); err != nil {
				t.Fatal(err)
			}
			c.readSome(1 + i%100)
			if i%5 == 0 {
				synctest.Wait()
			}
		}
		for range 200 {
			synctest.Wait()
			c.readSome(1 << 20)
		}
		if err := c.s.Progress(); err != nil {
			t.Fatal(err)
		}
		c.readSome(1 << 20)
		if w := c.active[0]; w.notified != r.hub.Revision() || c.peek(w) != nil {
			t.Fatalf("%+v at revision %d", w, r.hub.Revision())
		}
	})
}

// #17529: hundreds of prev_kv watches on one stream, a client that does not
// read, and compaction passing them: events were lost without a word.
func TestIssue17529CompactionPassesSlowWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{StreamPendingBytes: 16 << 10})
		c := &watcherClient{client: r.open(), r: r, active: map[int64]*watch{}, dead: map[int64]bool{}, opts: r.hub.opts}
		for i := range 800 {
			w := &watch{key: fmt.Sprintf("k%d", i%400), variant: wantPrev}
			if i%40 == 0 {
				w.key, w.end = "k", "l"
			}
			c.create(&pb.WatchCreateRequest{Key: []byte(w.key), RangeEnd: []byte(w.end), PrevKv: true})
			c.pending = append(c.pending, w)
		}
		for c.readSome(1 << 20) {
		}
		value := strings.Repeat("v", 1<<10)
		for i := range 400 {
			r.txn(put(fmt.Sprintf("k%d", i), value))
		}
		r.m.compactTo(390)
		for i := range 400 {
			r.txn(put(fmt.Sprintf("k%d", i), value))
		}
		for more := true; more; {
			for c.readSome(1 << 16) {
			}
			synctest.Wait()
			select {
			case <-c.ready:
			default:
				more = false
			}
		}
		r.hub.checkInvariants(t)
		// c has checked that nobody moved on over a gap. Here: that whoever
		// lives has everything, and that both kinds occur.
		for _, w := range c.active {
			if e := c.peek(w); e != nil {
				t.Fatalf("%+v waits for revision %d", w, e.rev)
			}
		}
		if len(c.dead) < 20 || len(c.active) == 0 || len(c.active)+len(c.dead) != 800 {
			t.Fatalf("%d watchers live, %d canceled as compacted", len(c.active), len(c.dead))
		}
	})
}

// #18089, #19179: a watch from the compact revision must see that revision,
// also if it is a delete.
func TestIssue18089WatchFromCompactRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		r.txn(put("a", "1"))
		r.txn(del("a"))
		r.txn(put("a", "2"))
		r.m.compactTo(3)
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 2})
		synctest.Wait()
		want(t, c.drain(), "@4 id=0 created", "@4 id=1 created", "@0 id=1 canceled compact=3", "@4 id=0 del(a)@3 put(a=2)@4")
	})
}

// #20221: a watch from a future revision got older events and notifications.
func TestIssue20221FutureRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{ProgressInterval: time.Second})
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte{0}, StartRevision: 5, ProgressNotify: true})
		evs := append(append(r.m.commit(put("a", "2")), r.m.commit(put("a", "3"))...), r.m.commit(put("a", "4"))...)
		r.hub.Publish(evs, 4)
		_ = c.s.Progress()
		time.Sleep(2 * c.s.period)
		synctest.Wait()
		want(t, c.drain(), "@1 id=0 created")
		// A restored snapshot jumps over revisions, not over the start.
		r.m.commit(put("a", "5"))
		r.m.commit(put("b", "6"))
		r.hub.Restored(6)
		synctest.Wait()
		want(t, c.drain(), "@6 id=0 put(a=5)@5 put(b=6)@6")

		// One batch may hold revisions before and after the start.
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 9})
		evs = evs[:0]
		for i := range 4 {
			evs = append(evs, r.m.commit(put("a", fmt.Sprint(i+7)))...)
		}
		r.hub.Publish(evs, 10)
		want(t, c.drain(), "@6 id=1 created",
			"@10 id=1 put(a=9)@9 put(a=10)@10",
			"@10 id=0 put(a=7)@7 put(a=8)@8 put(a=9)@9 put(a=10)@10")
	})
}

// #15271: a watch went back in time, or lost events, when its member was sent
// a snapshot.
func TestIssue15271Snapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true})
		c.create(&pb.WatchCreateRequest{Key: []byte("a")})
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 1 << 62})
		r.txn(put("a", "2"))
		for i := 3; i < 8; i++ {
			r.m.commit(put("a", fmt.Sprint(i)))
		}
		r.hub.Restored(7)
		synctest.Wait()
		r.txn(put("a", "8"))
		got := c.drain()
		slices.SortStableFunc(got, func(a, b *pb.WatchResponse) int { return int(a.WatchId - b.WatchId) })
		want(t, got, "@1 id=0 created", "@2 id=0 put(a=2)@2",
			"@7 id=0 put(a=3)@3<2@2 put(a=4)@4<3@3 put(a=5)@5<4@4 put(a=6)@6<5@5 put(a=7)@7<6@6",
			"@8 id=0 put(a=8)@8<7@7",
			"@1 id=1 created", "@2 id=1 put(a=2)@2",
			"@7 id=1 put(a=3)@3 put(a=4)@4 put(a=5)@5 put(a=6)@6 put(a=7)@7",
			"@8 id=1 put(a=8)@8", "@1 id=2 created")

		for i := 9; i < 20; i++ {
			r.m.commit(put("a", fmt.Sprint(i)))
		}
		r.m.compactTo(15)
		r.hub.Restored(19)
		synctest.Wait()
		got = c.drain()
		slices.SortStableFunc(got, func(a, b *pb.WatchResponse) int { return int(a.WatchId - b.WatchId) })
		want(t, got, "@0 id=0 canceled compact=15", "@0 id=1 canceled compact=15")
		r.hub.checkInvariants(t)
	})
}

// #20655: events were lost when watches were created and canceled fast.
func TestIssue20655Churn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		c := &watcherClient{client: r.open(), r: r, active: map[int64]*watch{}, dead: map[int64]bool{}, canceling: map[int64]int{}, opts: r.hub.opts}
		for i := range 800 {
			r.txn(put("a", fmt.Sprint(i)))
			w := &watch{key: "a", start: int64(i % 4 / 3 * (i / 2))}
			c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: w.start})
			c.pending = append(c.pending, w)
			if i%2 == 0 {
				for id, w := range c.active {
					if w.canceling = true; c.s.Cancel(id) != nil {
						t.Fatal("cancel refused")
					}
					break
				}
			}
			c.readSome(1 << 20)
		}
		for range 100 {
			synctest.Wait()
			for c.readSome(1 << 20) {
			}
		}
		for _, w := range c.active {
			if c.peek(w) != nil {
				t.Fatalf("%+v lacks events", w)
			}
		}
		r.hub.checkInvariants(t)
	})
}

// #20709: a negative start revision is refused as compacted.
func TestIssue20709NegativeRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1, WatchId: 4})
		want(t, c.drain(), `@1 id=-1 created canceled reason="etcdserver: mvcc: required revision has been compacted"`)
	})
}

// GHSA-xg4h: the right to one key let a client watch everything after it. The
// hook is shown the range as the client sent it.
func TestPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		var asked []string
		c := &client{t: t, ready: make(chan struct{}, 1)}
		c.s = r.hub.OpenStream(StreamOptions{Ready: c.signal, Permit: func(key, end []byte) error {
			asked = append(asked, fmt.Sprintf("%q %q", key, end))
			switch string(end) {
			case "":
				return nil
			case "token":
				return errors.New("rpc error: code = Unauthenticated desc = etcdserver: invalid auth token")
			}
			return ErrPermissionDenied
		}})
		defer c.s.Close()
		c.create(&pb.WatchCreateRequest{Key: []byte("a")})
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte{0}})
		c.create(&pb.WatchCreateRequest{RangeEnd: []byte("token")})
		c.create(&pb.WatchCreateRequest{RangeEnd: []byte("b"), StartRevision: -1})
		want(t, c.drain(), "@1 id=0 created",
			`@1 id=-1 created canceled reason="rpc error: code = PermissionDenied desc = etcdserver: permission denied"`,
			`@1 id=-1 created canceled reason="rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"`,
			`@1 id=-1 created canceled reason="etcdserver: mvcc: required revision has been compacted"`)
		if got := strings.Join(asked, " | "); got != `"a" "" | "a" "\x00" | "\x00" "token"` {
			t.Fatal(got)
		}
	})
}
