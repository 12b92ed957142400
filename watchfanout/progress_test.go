package watchfanout

import (
	"testing"
	"testing/synctest"
	"time"

	pb "quire/api/etcdserverpb"
)

// within checks that the stream gets nothing before from and the wanted
// responses by to, both counted from start.
func (c *client) within(start time.Time, from, to time.Duration, lines ...string) {
	c.t.Helper()
	time.Sleep(time.Until(start.Add(from)))
	synctest.Wait()
	want(c.t, c.drain())
	time.Sleep(time.Until(start.Add(to)))
	synctest.Wait()
	want(c.t, c.drain(), lines...)
}

func TestIntervalProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = time.Minute
		r := newRig(t, Options{ProgressInterval: interval})
		c := r.open()
		opened := time.Now()
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
		c.create(&pb.WatchCreateRequest{Key: []byte("b")})
		c.create(&pb.WatchCreateRequest{Key: []byte("c"), ProgressNotify: true})
		c.create(&pb.WatchCreateRequest{Key: []byte("d"), ProgressNotify: true, StartRevision: 4})
		r.txn(put("b", "1"))
		want(t, c.drain(), "@1 id=0 created", "@1 id=1 created", "@1 id=2 created", "@1 id=3 created", "@2 id=1 put(b=1)@2")

		// The period is the interval and up to a tenth more, from opening on.
		c.within(opened, interval-1, interval*11/10, "@2 id=0", "@2 id=2")
		period := c.s.period
		r.txn(put("a", "1"))
		want(t, c.drain(), "@3 id=0 put(a=1)@3")
		// The watcher that was sent an event is left out once.
		c.within(opened, 2*period-1, 2*period, "@3 id=2")
		r.txn(put("x", "1"))
		c.within(opened, 3*period-1, 3*period, "@4 id=0", "@4 id=2", "@4 id=3")
		if err := c.s.Cancel(0); err != nil {
			t.Fatal(err)
		}
		want(t, c.drain(), "@4 id=0 canceled")
		c.within(opened, 4*period-1, 4*period, "@4 id=2", "@4 id=3")
		_ = c.s.Cancel(2)
		_ = c.s.Cancel(3)
		c.drain()
		c.within(opened, 9*period, 9*period)
		// A later watcher comes into the same period.
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
		want(t, c.drain(), "@4 id=4 created")
		c.within(opened, 10*period-1, 10*period, "@4 id=4")
	})
}

// TestProgressNotRead: a client that does not read gets one notification for
// all the intervals that passed.
func TestProgressNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{ProgressInterval: time.Second})
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
		for range 100 {
			if err := c.s.Progress(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		want(t, c.drain(), "@1 id=0 created", "@1 id=-1", "@1 id=0")
	})
}

// TestProgressUnsynced: no notification while a watcher catches up or waits
// for its events to be read, neither stream-wide nor its own.
func TestProgressUnsynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{ProgressInterval: time.Second})
		release := make(chan struct{})
		for range 5 {
			r.txn(put("a", "1"))
		}
		r.m.onRead = func(int64) { <-release }
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3, ProgressNotify: true})
		c.create(&pb.WatchCreateRequest{Key: []byte("b"), ProgressNotify: true})
		synctest.Wait()
		if err := c.s.Progress(); err != nil {
			t.Fatal(err)
		}
		want(t, c.drain(), "@6 id=0 created", "@6 id=1 created")
		time.Sleep(c.s.period)
		synctest.Wait()
		want(t, c.drain(), "@6 id=1")
		close(release)
		synctest.Wait()
		if err := c.s.Progress(); err != nil {
			t.Fatal(err)
		}
		got := c.drain()
		want(t, got[1:], "@6 id=-1")
		if len(got[0].Events) != 4 {
			t.Fatalf("caught up with %s", show(got[0]))
		}
	})
}

// TestProgressWithCompactedWatcher: unlike etcd, a watcher that compaction has
// ended does not withhold the stream's notifications until it is canceled too.
func TestProgressWithCompactedWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		for range 5 {
			r.txn(put("a", "1"))
		}
		r.m.compactTo(5)
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
		c.create(&pb.WatchCreateRequest{Key: []byte("b")})
		synctest.Wait()
		if err := c.s.Progress(); err != nil {
			t.Fatal(err)
		}
		want(t, c.drain(), "@6 id=0 created", "@6 id=1 created", "@0 id=0 canceled compact=5", "@6 id=-1")
	})
}
