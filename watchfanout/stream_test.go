package watchfanout

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	pb "quire/api/etcdserverpb"
)

func TestWatchBasics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a")})
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b"), PrevKv: true})
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte{0}, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}})
		r.txn(put("a", "1"))
		r.txn(put("a", "2"), put("ab", "x"))
		r.txn(del("a"))
		r.txn(put("b", "9"))
		want(t, c.drain(),
			"@1 id=0 created", "@1 id=1 created", "@1 id=2 created",
			"@2 id=0 put(a=1)@2", "@2 id=1 put(a=1)@2",
			"@3 id=0 put(a=2)@3", "@3 id=1 put(a=2)@3<1@2 put(ab=x)@3",
			"@4 id=0 del(a)@4", "@4 id=1 del(a)@4<2@3", "@4 id=2 del(a)@4",
		)
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3, PrevKv: true, WatchId: 77})
		synctest.Wait()
		want(t, c.drain(), "@5 id=77 created", "@5 id=77 put(a=2)@3<1@2 del(a)@4<2@3")
		r.txn(put("a", "new"))
		want(t, c.drain(), "@6 id=0 put(a=new)@6", "@6 id=77 put(a=new)@6", "@6 id=1 put(a=new)@6")
		if err := c.s.Cancel(77); err != nil {
			t.Fatal(err)
		}
		if err := c.s.Progress(); err != nil {
			t.Fatal(err)
		}
		want(t, c.drain(), "@6 id=77 canceled", "@6 id=-1")
	})
}

// TestCancelWithinFragments: a watcher that is canceled while its fragments are
// sent gets the rest of them, for a client loses what comes in between; the
// watcher that takes its place in the cursor gets all of its own.
func TestCancelWithinFragments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{FragmentBytes: 250})
		c := r.open()
		for range 3 {
			c.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), Fragment: true})
		}
		c.drain()
		value := strings.Repeat("v", 100)
		r.txn(put("k1", value), put("k2", value), put("k3", value))
		var got []*pb.WatchResponse
		for i := range 20 {
			some, _ := c.fill(1)
			got = append(got, some...)
			if i == 0 {
				if err := c.s.Cancel(0); err != nil {
					t.Fatal(err)
				}
				r.txn(put("k4", "x"))
			}
		}
		var lines []string
		for _, r := range got {
			lines = append(lines, fmt.Sprint(r.WatchId, len(r.Events), r.Fragment, r.Canceled, r.Header.Revision))
		}
		const wanted = "0 1 true false 2|0 1 true false 2|0 1 false false 2|" +
			"2 1 true false 2|2 1 true false 2|2 1 false false 2|" +
			"1 1 true false 2|1 1 true false 2|1 1 false false 2|" +
			"0 0 false true 2|2 1 false false 3|1 1 false false 3"
		if l := strings.Join(lines, "|"); l != wanted {
			t.Fatalf("got  %s\nwant %s", l, wanted)
		}
	})
}

// TestRewindWhileReading: a cohort is moved back for a watcher that needs
// older history while a worker reads for it. What was read is then of no use.
func TestRewindWhileReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		const revs = 5 * nearRevisions
		for range revs / 4 {
			r.m.commit(put("a", "1"))
			r.m.commit(put("b", "1"))
			r.m.commit(put("c", "1"))
			r.m.commit(put("d", "1"))
		}
		_, rev := r.m.Bounds()
		r.hub.Publish(nil, rev)
		release := make(chan struct{})
		r.m.onRead = func(int64) { <-release }
		c := r.checkedClient("client")
		for i := range int64(maxCohorts) {
			c.watch("a", "b", (i+1)*(nearRevisions+1))
			synctest.Wait()
		}
		if n := len(c.s.cohorts); n != maxCohorts {
			t.Fatalf("%d cohorts", n)
		}
		c.watch("b", "", 2)
		c.watch("c", "", nearRevisions+100)
		close(release)
		c.readOn()
		c.complete()
		if st := r.hub.Stats(); st.SlowWatchers != 0 {
			t.Fatalf("%+v", st)
		}
		r.hub.checkInvariants(t)
	})
}
