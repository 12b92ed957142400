package watchfanout

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "quire/api/etcdserverpb"
)

// rightsOf opens a stream that may watch what allowed says.
func (r *rig) rightsOf(allowed func(key, end string) bool) *client {
	c := &client{t: r.t, ready: make(chan struct{}, 1)}
	may := func(key, end []byte) error {
		if allowed(string(key), string(end)) {
			return nil
		}
		return ErrPermissionDenied
	}
	c.s = r.hub.OpenStream(StreamOptions{Ready: c.signal, Permit: may, Keep: func() func(key, end []byte) error { return may }})
	r.t.Cleanup(c.s.Close)
	return c
}

// texts shows answers without their headers, by watch id.
func texts(got []*pb.WatchResponse) (out []string) {
	slices.SortStableFunc(got, func(a, b *pb.WatchResponse) int { return int(a.WatchId - b.WatchId) })
	for _, resp := range got {
		s := ""
		switch {
		case resp.Created:
			s = "created"
		case resp.Canceled:
			s = "canceled: " + strings.TrimPrefix(resp.CancelReason, "rpc error: code = PermissionDenied desc = ")
		default:
			for _, e := range resp.Events {
				s += string(e.Kv.Key) + " "
			}
		}
		out = append(out, s)
	}
	return out
}

func TestRecheckCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		var lost atomic.Value
		lost.Store("")
		c := r.rightsOf(func(key, end string) bool { return !strings.Contains(lost.Load().(string), "["+key+","+end+")") })
		other := r.open() // keeps everything
		other.create(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		for _, w := range [][2]string{{"a", ""}, {"a", "b"}, {"a\xff", "b"}, {"b", "\x00"}, {"\x00", "\x00"}, {"aa", "ac"}, {"a", "b"}, {"q", "q\x00"}} {
			c.create(&pb.WatchCreateRequest{Key: []byte(w[0]), RangeEnd: []byte(w[1]), PrevKv: w[0] == "aa"})
		}
		r.txn(put("old", "1")) // something to catch up on
		c.create(&pb.WatchCreateRequest{Key: []byte("old"), StartRevision: 1})
		synctest.Wait()
		other.drain()
		c.drain()
		r.hub.Recheck()
		synctest.Wait()
		if got := c.drain(); len(got) != 0 {
			t.Fatalf("nothing has changed, got %q", texts(got))
		}
		want := []string{"[a,)", "[a,b)", "[a\xff,b)", "[b,\x00)", "[\x00,\x00)", "[aa,ac)", "", "[q,)", "[old,)"}
		for id, gone := range want {
			if gone == "" {
				continue // went together with the other of its range
			}
			lost.Store(lost.Load().(string) + gone)
			r.txn(put("zz", "queued")) // "\x00" and "b" on see it
			r.hub.Recheck()
			synctest.Wait()
			got := c.drain()
			canceled := slices.DeleteFunc(slices.Clone(got), func(resp *pb.WatchResponse) bool { return !resp.Canceled })
			n := 1
			if gone == "[a,b)" {
				n = 2
			}
			if len(canceled) != n || canceled[0].WatchId != int64(id) || canceled[0].CancelReason != ErrPermissionDenied.Error() || canceled[0].Created {
				t.Fatalf("%q lost: %q", gone, texts(got))
			}
			for _, resp := range got {
				if !resp.Canceled && slices.ContainsFunc(canceled, func(c *pb.WatchResponse) bool { return c.WatchId == resp.WatchId }) {
					t.Fatalf("%q lost, but still served: %q", gone, texts(got))
				}
			}
			r.hub.checkInvariants(t)
		}
		if got := r.hub.Stats(); got.Watchers != 1 || got.RevokedWatchers != 9 {
			t.Errorf("%+v", got)
		}
		// The ids are free again, and creating is refused by Permit as before.
		c.create(&pb.WatchCreateRequest{Key: []byte("a")})
		c.create(&pb.WatchCreateRequest{Key: []byte("free"), WatchId: 3})
		if got := texts(c.drain()); !slices.Equal(got, []string{"created", "created"}) {
			t.Errorf("%q", got)
		}
	})
}

// A watcher that was permitted by rights that are gone when it is there must not
// slip through, whichever of both comes first.
func TestRecheckWhileCreating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		var allowed atomic.Bool
		allowed.Store(true)
		c := &client{t: t, ready: make(chan struct{}, 1)}
		may := func([]byte, []byte) error {
			if allowed.Load() {
				return nil
			}
			return ErrPermissionDenied
		}
		c.s = r.hub.OpenStream(StreamOptions{Ready: c.signal, Keep: func() func(key, end []byte) error { return may },
			Permit: func(key, end []byte) error {
				err := may(key, end)
				allowed.Store(false) // right after the question
				r.hub.Recheck()
				synctest.Wait() // the check of all streams is over
				return err
			}})
		t.Cleanup(c.s.Close)
		c.create(&pb.WatchCreateRequest{Key: []byte("a")})
		if got := c.drain(); len(got) != 2 || !got[0].Created || !got[1].Canceled || got[1].CancelReason == "" {
			t.Errorf("%v", got)
		}
		r.hub.checkInvariants(t)
	})
}

// TestRecheckConcurrent changes rights while watchers come and go and events
// flow; at the end nobody has a watcher who may not.
func TestRecheckConcurrent(t *testing.T) {
	r := newRig(t, Options{StreamPendingBytes: 512})
	var denied atomic.Int64 // a key
	denied.Store(-1)
	key := func(n int) []byte { return []byte{'k', byte('0' + n)} }
	errDenied := errors.New("denied")
	may := func(k, _ []byte) error {
		if d := denied.Load(); d >= 0 && string(k) == string(key(int(d))) {
			return errDenied
		}
		return nil
	}
	var clients []*client
	for range 4 {
		c := &client{t: t, ready: make(chan struct{}, 1)}
		c.s = r.hub.OpenStream(StreamOptions{Ready: c.signal, Permit: may, Keep: func() func(key, end []byte) error { return may }})
		t.Cleanup(c.s.Close)
		clients = append(clients, c)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i, c := range clients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for n := 0; n < 2000; n++ {
				c.create(&pb.WatchCreateRequest{Key: key(rnd.IntN(8)), StartRevision: rnd.Int64N(3)})
				if rnd.IntN(3) == 0 {
					c.fill(4096)
				}
				if c.s.Busy() {
					c.drain()
				}
			}
		})
	}
	wg.Go(func() {
		rnd := rand.New(rand.NewPCG(9, 9))
		for {
			select {
			case <-stop:
				return
			default:
				r.txn(put(string(key(rnd.IntN(8))), "value"))
			}
		}
	})
	for i := range 200 {
		denied.Store(int64(i % 8))
		r.hub.Recheck()
	}
	denied.Store(5)
	r.hub.Recheck()
	close(stop)
	wg.Wait()
	survivors := func() (n int) {
		for _, c := range clients {
			c.s.mu.Lock()
			for _, cur := range c.s.ids {
				if cur != nil && cur.group.key == string(key(5)) {
					n++
				}
			}
			c.s.mu.Unlock()
		}
		return n
	}
	for deadline := time.Now().Add(10 * time.Second); survivors() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d watchers survive", survivors())
		}
	}
	r.hub.Close()
	r.hub.checkInvariants(t)
}
