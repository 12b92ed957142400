package watchfanout

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "quire/api/etcdserverpb"
)

func (r *rig) checkedClient(name string) *watcherClient {
	return &watcherClient{client: r.open(), r: r, name: name, active: map[int64]*watch{}, dead: map[int64]bool{}, canceling: map[int64]int{}, opts: r.hub.opts}
}

func (c *watcherClient) watch(key, end string, start int64) {
	c.t.Helper()
	c.create(&pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: start})
	c.pending = append(c.pending, &watch{key: key, end: end, start: start})
}

// readOn reads until nothing comes any more.
func (c *watcherClient) readOn() {
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
}

func (c *watcherClient) complete() {
	c.t.Helper()
	for _, w := range c.active {
		if e := c.peek(w); e != nil {
			c.fatalf("%+v lacks revision %d", w, e.rev)
		}
	}
}

// TestNeverRead: clients that never read keep next to nothing alive while the
// member takes many times the budget in writes, and miss nothing when they
// read at last (C6 of the fault table).
func TestNeverRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget, clients = 1 << 20, 100
		r := newRig(t, Options{TotalPendingBytes: budget, StreamPendingBytes: 64 << 10, ChunkBytes: 32 << 10})
		var all []*watcherClient
		for i := range clients {
			c := r.checkedClient(fmt.Sprint("client ", i))
			c.watch(fmt.Sprintf("k%02d", i), fmt.Sprintf("k%02dz", i), 0)
			c.watch(fmt.Sprintf("quiet%02d", i), "", 0)
			all = append(all, c)
		}
		value := strings.Repeat("v", 4<<10)
		peak := int64(0)
		for i := range 2000 {
			r.txn(put(fmt.Sprintf("k%02d", i%clients), value))
			if i%50 == 0 {
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
			}
			peak = max(peak, r.hub.Stats().PendingBytes)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if st := r.hub.Stats(); peak > budget+budget/4 || st.PendingBytes > budget || st.SlowWatchers == 0 || st.Sheds == 0 {
			t.Fatalf("peak %d, %+v", peak, st)
		}
		r.hub.shed(true)
		for i := range clients {
			r.txn(put(fmt.Sprintf("k%02d", i), value))
			r.txn(put(fmt.Sprintf("quiet%02d", i), value))
		}
		synctest.Wait()
		if st := r.hub.Stats(); st.PendingBytes != 0 {
			t.Fatalf("streams that do not read hold events: %+v", st)
		}
		for _, c := range all {
			c.readOn()
			c.complete()
		}
		r.hub.checkInvariants(t)
		if st := r.hub.Stats(); st.PendingBytes != 0 || st.SlowWatchers != 0 {
			t.Fatalf("%+v", st)
		}
	})
}

// TestReadersDespiteHoarders: clients that read get everything while others
// fill the budget and do not read.
func TestReadersDespiteHoarders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{TotalPendingBytes: 32 << 10, StreamPendingBytes: 64 << 10, ChunkBytes: 8 << 10})
		for range 20 {
			r.checkedClient("hoarder").watch("a", "z", 0)
		}
		reader := r.checkedClient("reader")
		reader.watch("a", "z", 0)
		for i := range 500 {
			r.txn(put(fmt.Sprint("k", i), strings.Repeat("v", 1<<10)))
			if i%10 == 9 {
				reader.readOn()
			}
		}
		for range 100 {
			reader.readOn()
			time.Sleep(shedInterval)
		}
		reader.complete()
		if reader.received != 500 {
			t.Fatalf("%d events, %+v", reader.received, r.hub.Stats())
		}
	})
}

// TestShedDrained: shedding a stream that has just read everything leaves it
// working; it waits for ready.
func TestShedDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a")})
		c.drain()
		c.s.shed()
		r.txn(put("a", "1"))
		synctest.Wait()
		want(t, c.drain(), "@2 id=0 put(a=1)@2")
		// One that has not read does so by itself.
		r.txn(put("a", "2"))
		c.s.shed()
		r.txn(put("a", "3"))
		synctest.Wait()
		want(t, c.drain())
		synctest.Wait()
		want(t, c.drain(), "@4 id=0 put(a=2)@3 put(a=3)@4")
	})
}

// TestBusy: a client that floods creates and cancels without reading is held up.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{MaxControls: 10})
		c := r.open()
		for i := range 10 {
			c.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: int64(i % 9)})
		}
		if err := c.s.Create(&pb.WatchCreateRequest{Key: []byte("a")}); !errors.Is(err, ErrBusy) || !c.s.Busy() {
			t.Fatal(err)
		}
		if err := c.s.Cancel(3); !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		if got, more := c.fill(1); len(got) != 1 || !more {
			t.Fatal(got, more)
		}
		if err := c.s.Cancel(3); err != nil {
			t.Fatal(err)
		}
		if got := c.drain(); len(got) != 10 || !got[9].Canceled {
			t.Fatal(got)
		}
		c.s.Close()
		if err := c.s.Create(&pb.WatchCreateRequest{}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if err := c.s.Cancel(1); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if err := c.s.Progress(); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if got := c.drain(); len(got) != 0 {
			t.Fatal(got)
		}
	})
}

// TestManyWatchers: 100,000 watchers on one stream are made within a second
// and cost what doc.go says (C7 of the fault table).
func TestManyWatchers(t *testing.T) {
	const n = 100000
	h := NewHub(flat{rev: 1}, Options{})
	defer h.Close()
	s := h.OpenStream(StreamOptions{})
	defer s.Close()
	key := []byte("/registry/pods/default/pod-0000000")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := cpuNanos()
	for i := range n {
		copy(key[len(key)-7:], fmt.Sprintf("%07d", i))
		for s.Create(&pb.WatchCreateRequest{Key: key}) != nil {
			s.Fill(nil, 1<<20, nil)
		}
	}
	s.Fill(nil, 1<<30, nil)
	took := time.Duration(cpuNanos() - start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%v, %.0f bytes per watcher", took, each)
	if each > 300 {
		t.Errorf("%.0f bytes per watcher", each)
	}
	if !raceEnabled && took > 10*time.Second { // 0.2 s if each costs the same
		t.Errorf("took %v of processor time", took)
	}
	if st := h.Stats(); st.Watchers != n {
		t.Errorf("%+v", st)
	}
}

// TestHistoryError: watchers that need a history that cannot be read are
// canceled with the error; the others are not.
func TestHistoryError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []error
		r := newRig(t, Options{OnHistoryError: func(err error) { told = append(told, err) }})
		for i := range 9 {
			r.txn(put("a", fmt.Sprint(i)))
		}
		r.m.fail = errors.New("page 7 is corrupt")
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a")}) // first: the other is canceled at any time from its creation on
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 5})
		synctest.Wait()
		r.txn(put("a", "x"))
		want(t, c.drain(), "@10 id=0 created", "@10 id=1 created", `@10 id=1 canceled reason="page 7 is corrupt"`, "@11 id=0 put(a=x)@11")
		if len(told) != 1 || r.hub.Stats().HistoryErrors != 1 {
			t.Fatal(told)
		}
		// A compaction between Bounds and Events is a compaction, one that
		// Bounds never admits an error.
		r.m.fail = nil
		first := true
		r.m.onRead = func(from int64) {
			if first {
				r.m.compactTo(9)
			}
			first = false
		}
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 5})
		synctest.Wait()
		want(t, c.drain(), "@11 id=2 created", "@0 id=2 canceled compact=9")
		r.m.onRead, r.m.fail = nil, ErrCompacted
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 10})
		synctest.Wait()
		if got := c.drain(); len(got) != 2 || !strings.Contains(got[1].CancelReason, "compacted") || got[1].CompactRevision != 0 {
			t.Fatal(got)
		}
		r.hub.checkInvariants(t)
	})
}

// TestWantsPrev: a batch published without previous values that a watcher
// wants is repaired from history.
func TestWantsPrev(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		r.txn(put("a", "1"))
		c := r.open()
		if r.hub.WantsPrev() {
			t.Fatal("nobody wants previous values")
		}
		evs := r.m.commit(put("a", "2")) // applied before the watcher came
		evs[0].Prev = nil
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true})
		if !r.hub.WantsPrev() {
			t.Fatal("previous values are wanted")
		}
		r.m.wire[1].Prev = mustMarshal(r.m.events[1].prev)
		r.hub.Publish(evs, 3)
		synctest.Wait()
		want(t, c.drain(), "@2 id=0 created", "@3 id=0 put(a=2)@3<1@2")
		_ = c.s.Cancel(0)
		if r.hub.WantsPrev() {
			t.Fatal("nobody wants previous values any more")
		}
	})
}
