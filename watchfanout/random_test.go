package watchfanout

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/api/mvccpb"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run TestRandom with this seed only")
	seedsFlag = flag.Int("seeds", 60, "how many seeds TestRandom runs")
)

// watch is what a client knows of one of its watchers, and what the model says
// it must see next.
type watch struct {
	id        int64
	key, end  string
	start     int64 // first revision it must see
	future    int64 // start revision asked for if it was not there yet
	variant   variant
	fragment  bool
	progress  bool
	next      int   // model events looked at
	last      int64 // revision of the last event
	notified  int64 // largest progress revision
	canceling bool
}

// watcherClient is a client that checks everything it receives.
type watcherClient struct {
	*client
	r         *rig
	name      string
	active    map[int64]*watch
	pending   []*watch       // asked for, not answered; answers come in this order
	dead      map[int64]bool // passed by compaction, not canceled
	canceling map[int64]int  // dead, canceled, not answered
	fragmId   int64
	inFragm   bool
	opts      Options
	received  int
}

func (c *watcherClient) fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf(c.name+": "+format, args...)
}

func (c *watcherClient) readSome(maxBytes int) bool {
	got, more := c.fill(maxBytes)
	for _, resp := range got {
		c.check(resp)
	}
	return more
}

func (c *watcherClient) check(resp *pb.WatchResponse) {
	if c.inFragm && resp.WatchId != c.fragmId {
		c.fatalf("fragments of %d interrupted by %s", c.fragmId, show(resp))
	}
	switch {
	case resp.Created:
		c.created(resp)
	case resp.Canceled:
		c.canceled(resp)
	case len(resp.Events) == 0:
		c.notified(resp)
	default:
		c.eventsOf(resp)
	}
}

func (c *watcherClient) created(resp *pb.WatchResponse) {
	if len(c.pending) == 0 {
		c.fatalf("created without a request: %s", show(resp))
	}
	w := c.pending[0]
	c.pending = c.pending[1:]
	if resp.Canceled {
		if w.id != -2 || resp.WatchId != -1 || resp.CancelReason == "" {
			c.fatalf("refused: %s", show(resp))
		}
		return
	}
	if w.id == -2 || w.id != 0 && w.id != resp.WatchId || c.active[resp.WatchId] != nil {
		c.fatalf("created: %s, asked for id %d", show(resp), w.id)
	}
	w.id = resp.WatchId
	rev := resp.Header.Revision
	switch {
	case w.start == 0:
		w.start = rev + 1
	case w.start > rev:
		w.future = w.start
	}
	c.active[w.id] = w
}

func (c *watcherClient) canceled(resp *pb.WatchResponse) {
	w := c.active[resp.WatchId]
	delete(c.active, resp.WatchId)
	c.inFragm = false
	if resp.CompactRevision != 0 {
		if w == nil {
			c.fatalf("compacted without watcher: %s", show(resp))
		}
		if resp.Header.Revision != 0 || resp.CancelReason != "" || w.start >= resp.CompactRevision || w.last+1 >= resp.CompactRevision && w.last >= w.start {
			c.fatalf("%+v compacted: %s", w, show(resp))
		}
		if w.canceling {
			c.canceling[resp.WatchId]++
		} else {
			c.dead[resp.WatchId] = true
		}
		return
	}
	if resp.CancelReason != "" || w == nil && c.canceling[resp.WatchId] == 0 || w != nil && !w.canceling {
		c.fatalf("canceled: %s", show(resp))
	}
	if w == nil {
		c.canceling[resp.WatchId]--
	}
}

// peek is the next event the model has for the watcher, or nil.
func (c *watcherClient) peek(w *watch) *modelEvent {
	c.r.m.mu.Lock()
	defer c.r.m.mu.Unlock()
	for ; w.next < len(c.r.m.events); w.next++ {
		e := &c.r.m.events[w.next]
		if e.rev >= w.start && inRange(e.key, w.key, w.end) && w.variant.sees(e.del) {
			return e
		}
	}
	return nil
}

func (c *watcherClient) notified(resp *pb.WatchResponse) {
	rev := resp.Header.Revision
	for id, w := range c.active {
		if resp.WatchId != -1 && resp.WatchId != id {
			continue
		}
		if w.canceling {
			continue
		}
		if e := c.peek(w); e != nil && e.rev <= rev {
			c.fatalf("%s overtakes event of revision %d for watcher %+v", show(resp), e.rev, w)
		}
		if rev < w.notified || rev < w.last || rev < w.future {
			c.fatalf("%s after %+v", show(resp), w)
		}
		w.notified = rev
	}
	if resp.WatchId != -1 && c.active[resp.WatchId] == nil && !c.dead[resp.WatchId] && c.canceling[resp.WatchId] == 0 {
		c.fatalf("notification of no watcher: %s", show(resp))
	}
}

func (c *watcherClient) eventsOf(resp *pb.WatchResponse) {
	w := c.active[resp.WatchId]
	if w == nil {
		c.fatalf("events of no watcher: %s", show(resp))
	}
	size := resp.SizeVT()
	if w.fragment && size >= c.opts.FragmentBytes && len(resp.Events) > 1 {
		c.fatalf("fragment of %d bytes", size)
	}
	c.inFragm, c.fragmId = resp.Fragment, w.id
	if resp.Fragment && !w.fragment {
		c.fatalf("unasked fragment")
	}
	for _, ev := range resp.Events {
		e := c.peek(w)
		if e == nil {
			c.fatalf("unexpected %s for %+v", showEvent(ev), w)
		}
		shown := &mvccpb.Event{Kv: e.kv}
		if e.del {
			shown.Type = mvccpb.Event_DELETE
		}
		if w.variant&wantPrev != 0 && (ev.PrevKv != nil || e.rev > c.r.m.compact) {
			shown.PrevKv = e.prev // may be absent at the compact revision
		}
		a, _ := shown.MarshalVT()
		b, _ := ev.MarshalVT()
		if !bytes.Equal(a, b) {
			c.fatalf("watcher %+v got %s, expected %s", w, showEvent(ev), showEvent(shown))
		}
		w.next++
		w.last = e.rev
		c.received++
	}
	if resp.Header.Revision < w.last {
		c.fatalf("header of %s", show(resp))
	}
	if !resp.Fragment {
		if e := c.peek(w); e != nil && e.rev <= w.last {
			c.fatalf("revision %d torn: %s lacks %+v", w.last, show(resp), e)
		}
	}
}

// chaos is a random run.
type chaos struct {
	*rig
	rand    *rand.Rand
	opts    Options
	clients []*watcherClient
	opened  int
	held    []Event // committed, not published
}

func (x *chaos) open() *watcherClient {
	x.opened++
	c := &watcherClient{client: x.rig.open(), r: x.rig, active: map[int64]*watch{}, dead: map[int64]bool{}, canceling: map[int64]int{}, opts: x.opts, name: fmt.Sprintf("stream %d", x.opened)}
	x.clients = append(x.clients, c)
	return c
}

func (x *chaos) key() string {
	n := 1 + x.rand.IntN(3)
	var b strings.Builder
	for range n {
		b.WriteByte("ab\xff"[x.rand.IntN(3)])
	}
	return b.String()
}

func (x *chaos) value() string {
	n := x.rand.IntN(60)
	if x.rand.IntN(20) == 0 {
		n = 500 + x.rand.IntN(1000)
	}
	return strings.Repeat(string(rune('a'+x.rand.IntN(26))), n)
}

func (x *chaos) commit() {
	ops := map[string]op{}
	for range 1 + x.rand.IntN(4) {
		k := x.key()
		o := put(k, x.value())
		if x.rand.IntN(3) == 0 {
			o = del(k)
		}
		ops[k] = o
	}
	var list []op
	for _, o := range ops {
		list = append(list, o)
	}
	x.held = append(x.held, x.m.commit(list...)...)
}

func (x *chaos) publish() {
	_, rev := x.m.Bounds()
	evs := append([]Event(nil), x.held...)
	if x.rand.IntN(4) == 0 || !x.hub.WantsPrev() {
		for i := range evs {
			evs[i].Prev = nil
		}
	}
	x.hub.Publish(evs, rev)
	clear(evs)
	x.held = nil
}

func (x *chaos) restored() {
	_, rev := x.m.Bounds()
	x.held = nil
	x.hub.Restored(rev)
}

func (x *chaos) create(c *watcherClient) {
	w := &watch{key: x.key()}
	switch x.rand.IntN(5) {
	case 0:
		e, unbounded := prefixEnd([]byte(w.key))
		if w.end = e; unbounded {
			w.end = "\x00"
		}
	case 1:
		w.end = "\x00"
	case 2:
		w.end = x.key()
	case 3:
		w.key, w.end = "", "\x00"
	}
	rev := x.hub.Revision()
	switch x.rand.IntN(5) {
	case 0, 1:
		w.start = max(0, rev-x.rand.Int64N(50))
	case 2:
		w.start = rev + x.rand.Int64N(8)
	case 3:
		w.start = x.rand.Int64N(rev + 1)
	}
	w.variant = variant(x.rand.IntN(8))
	if x.rand.IntN(2) == 0 { // a popular range, so that cursors have many watchers
		w.key, w.end, w.variant = "a", "b", wantPrev*variant(x.rand.IntN(2))
	}
	w.fragment, w.progress = x.rand.IntN(2) == 0, x.rand.IntN(3) == 0
	if x.rand.IntN(4) == 0 {
		w.id = 1 + x.rand.Int64N(12)
	}
	req := &pb.WatchCreateRequest{Key: []byte(w.key), RangeEnd: []byte(w.end), StartRevision: w.start, WatchId: w.id, Fragment: w.fragment, ProgressNotify: w.progress, PrevKv: w.variant&wantPrev != 0}
	if w.variant&noPut != 0 {
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if w.variant&noDelete != 0 {
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NODELETE)
	}
	c.s.mu.Lock()
	_, taken := c.s.ids[w.id]
	c.s.mu.Unlock()
	if w.id != 0 && taken || w.end != "" && w.end != "\x00" && w.end <= w.key {
		w.id = -2
	}
	err := c.s.Create(req)
	clear(req.Key)
	clear(req.RangeEnd)
	switch {
	case errors.Is(err, ErrBusy):
		if !c.s.Busy() {
			x.t.Fatal("busy create on a stream that is not")
		}
	case err != nil:
		x.t.Fatal(err)
	default:
		if w.key == "" {
			w.key = "\x00"
		}
		c.pending = append(c.pending, w)
	}
}

func (x *chaos) cancel(c *watcherClient) {
	for id, w := range c.active {
		if w.canceling {
			continue
		}
		if err := c.s.Cancel(id); err == nil {
			w.canceling = true
		} else if !errors.Is(err, ErrBusy) {
			x.t.Fatal(err)
		}
		return
	}
	for id := range c.dead {
		if err := c.s.Cancel(id); err == nil {
			delete(c.dead, id)
			c.canceling[id]++
		}
		return
	}
}

func (x *chaos) step() {
	c := x.clients[x.rand.IntN(len(x.clients))]
	switch n := x.rand.IntN(100); {
	case n < 25:
		x.commit()
		if x.rand.IntN(3) > 0 {
			x.publish()
		}
	case n < 45:
		x.create(c)
		if n < 27 {
			for range 25 {
				x.create(c)
			}
		}
	case n < 53:
		x.cancel(c)
		if n < 46 {
			for range 25 {
				x.cancel(c)
			}
		}
	case n < 83:
		c.readSome(1 + x.rand.IntN(3000))
	case n < 90:
		if err := c.s.Progress(); err != nil {
			x.t.Fatal(err)
		}
	case n < 92:
		compact, rev := x.m.Bounds()
		x.m.compactTo(compact + x.rand.Int64N(rev-compact+1)/2)
	case n < 95:
		synctest.Wait()
		x.hub.checkInvariants(x.t)
	case n < 96:
		if x.rand.IntN(4) == 0 {
			x.commit()
			x.restored()
		}
	case n < 97:
		if len(x.clients) > 2 {
			c.s.Close()
			for i := range x.clients {
				if x.clients[i] == c {
					x.clients = append(x.clients[:i], x.clients[i+1:]...)
					break
				}
			}
			x.open()
		}
	case n < 98:
		x.hub.shed(true)
	case n < 99:
		time.Sleep(time.Duration(x.rand.IntN(200)) * time.Millisecond)
	default:
		synctest.Wait()
	}
}

// settle reads everything and checks that nothing is missing.
func (x *chaos) settle() {
	x.publish()
	for x.readAll() || x.parked() {
	}
	x.hub.checkInvariants(x.t)
	for _, c := range x.clients {
		for _, w := range c.active {
			if e := c.peek(w); e != nil {
				c.fatalf("watcher %+v misses revision %d", w, e.rev)
			}
		}
		if len(c.pending) > 0 {
			c.fatalf("%d creates unanswered", len(c.pending))
		}
	}
	st := x.hub.Stats()
	if st.SlowWatchers != 0 || st.PendingBytes != 0 || st.PendingEvents != 0 {
		x.t.Fatalf("after settling: %+v", st)
	}
}

// readAll reads what there is and says whether more was announced meanwhile.
func (x *chaos) readAll() (more bool) {
	for _, c := range x.clients {
		for c.readSome(1 << 20) {
		}
	}
	synctest.Wait()
	for _, c := range x.clients {
		select {
		case <-c.ready:
			more = true
		default:
		}
	}
	return more
}

// parked lets the time pass that streams may wait for the total budget.
func (x *chaos) parked() bool {
	if x.hub.work.nParked.Load() == 0 {
		return false
	}
	time.Sleep(shedInterval)
	return true
}

func runChaos(t *testing.T, seed uint64, steps int) Stats {
	var st Stats
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		o := Options{
			FragmentBytes: 300 + rnd.IntN(2000), ResponseBytes: 1 + rnd.IntN(3000), ChunkBytes: 1 + rnd.IntN(4000),
			StreamPendingBytes: 500 + rnd.IntN(20000), TotalPendingBytes: 2000 + rnd.Int64N(1<<(8+rnd.IntN(10))), MaxControls: 1 + rnd.IntN(60),
		}
		x := &chaos{rig: newRig(t, o), rand: rnd, opts: o}
		x.m.maxRevs = rnd.IntN(20)
		// In the bubble the clients' ready may be left unread.
		for range 1 + rnd.IntN(6) {
			x.open()
		}
		for i := range steps {
			x.step()
			if i%500 == 499 {
				x.settle()
			}
		}
		x.settle()
		st = x.hub.Stats()
		for _, c := range x.clients {
			c.s.Close()
		}
		synctest.Wait()
		if end := x.hub.Stats(); end.Watchers != 0 || end.SlowWatchers != 0 || end.Streams != 0 || end.PendingBytes != 0 || x.hub.WantsPrev() || x.hub.synced.groups != 0 {
			t.Fatalf("after closing: %+v, %d groups", end, x.hub.synced.groups)
		}
	})
	return st
}

// TestRandom runs random operations against the model: every watcher must see
// what the model says, in order, once, revision by revision, and no
// notification may promise what was not sent.
func TestRandom(t *testing.T) {
	if *seedFlag != 0 {
		t.Logf("%+v", runChaos(t, *seedFlag, 4000))
		return
	}
	for i := range *seedsFlag {
		seed := rand.Uint64()
		if i < 20 {
			seed = uint64(i) + 1
		}
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			runChaos(t, seed, 1500)
		})
		if !ok {
			t.Fatalf("repeat with -run 'TestRandom$' -seed %d", seed)
		}
	}
}
