package watchfanout

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pb "quire/api/etcdserverpb"
	"quire/api/mvccpb"
)

// modelEvent is an event of the model history, decoded.
type modelEvent struct {
	rev     int64
	sub     int32
	del     bool
	key     string
	value   string
	created bool
	kv      *mvccpb.KeyValue
	prev    *mvccpb.KeyValue
}

// model is a store as simple as can be: a list of all events ever, and what is
// live. It is the History of the hubs under test and the judge of what their
// watchers receive.
type model struct {
	mu      sync.Mutex
	events  []modelEvent
	wire    []Event
	live    map[string]*mvccpb.KeyValue
	rev     int64
	compact int64

	reads   int
	fail    error
	onRead  func(from int64)
	maxRevs int // per Events call, 0: by bytes only
}

func newModel() *model { return &model{live: map[string]*mvccpb.KeyValue{}, rev: 1} }

// op is one change of a transaction.
type op struct {
	key, value string
	del        bool
}

func put(key, value string) op { return op{key: key, value: value} }
func del(key string) op        { return op{key: key, del: true} }

// commit applies the changes as one revision and returns its events, with
// previous values. Deletes of missing keys do nothing; without any change
// there is no revision.
func (m *model) commit(ops ...op) []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	rev := m.rev + 1
	from := len(m.wire)
	for _, o := range ops {
		prev := m.live[o.key]
		if o.del && prev == nil {
			continue
		}
		e := modelEvent{rev: rev, sub: int32(len(m.wire) - from), del: o.del, key: o.key, value: o.value, prev: prev}
		if o.del {
			e.kv = &mvccpb.KeyValue{Key: []byte(o.key), ModRevision: rev}
			delete(m.live, o.key)
		} else {
			e.kv = &mvccpb.KeyValue{Key: []byte(o.key), Value: []byte(o.value), ModRevision: rev, CreateRevision: rev, Version: 1}
			e.created = prev == nil
			if prev != nil {
				e.kv.CreateRevision, e.kv.Version = prev.CreateRevision, prev.Version+1
			}
			m.live[o.key] = e.kv
		}
		m.events = append(m.events, e)
		m.wire = append(m.wire, wireEvent(&e))
	}
	if len(m.wire) == from {
		return nil
	}
	m.rev = rev
	return m.wire[from:len(m.wire):len(m.wire)]
}

func wireEvent(e *modelEvent) Event {
	ev := Event{Main: e.rev, Sub: e.sub, Delete: e.del, Created: e.created, Key: []byte(e.key), KV: mustMarshal(e.kv)}
	if e.prev != nil {
		ev.Prev = mustMarshal(e.prev)
	}
	return ev
}

func mustMarshal(kv *mvccpb.KeyValue) []byte {
	b, err := kv.MarshalVT()
	if err != nil {
		panic(err)
	}
	return b
}

func (m *model) compactTo(rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.compact = max(m.compact, min(rev, m.rev))
}

func (m *model) Bounds() (int64, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.compact, m.rev
}

func (m *model) Events(dst []Event, from int64, maxBytes int, wantPrev bool) ([]Event, int64, error) {
	m.mu.Lock()
	hook := m.onRead
	m.mu.Unlock()
	if hook != nil {
		hook(from)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.fail != nil {
		return dst, 0, m.fail
	}
	if from < m.compact {
		return dst, 0, ErrCompacted
	}
	i := sort.Search(len(m.wire), func(i int) bool { return m.wire[i].Main >= from })
	size, next, revs := 0, from, 0
	for ; i < len(m.wire); i++ {
		ev := m.wire[i]
		if ev.Main >= next {
			if next > from && (size >= maxBytes || m.maxRevs > 0 && revs == m.maxRevs) {
				return dst, next, nil
			}
			next = ev.Main + 1
			revs++
		}
		size += len(ev.KV) + len(ev.Prev)
		if !wantPrev {
			ev.Prev = nil
		}
		dst = append(dst, ev)
	}
	return dst, max(next, m.rev+1), nil
}

// expected is what a watcher of [key, end) from start on must see, in order.
func (m *model) expected(key, end string, start int64, v variant) []modelEvent {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []modelEvent
	for _, e := range m.events {
		if e.rev >= start && inRange(e.key, key, end) && v.sees(e.del) {
			out = append(out, e)
		}
	}
	return out
}

// inRange is etcd's rule for a watched range.
func inRange(k, key, end string) bool {
	switch end {
	case "":
		return k == key
	case "\x00":
		return k >= key
	}
	return k >= key && k < end
}

// rig is a hub over a model.
type rig struct {
	t   testing.TB
	m   *model
	hub *Hub
}

func newRig(t testing.TB, o Options) *rig {
	m := newModel()
	if o.Header == nil {
		o.Header = testHeader
	}
	r := &rig{t: t, m: m, hub: NewHub(m, o)}
	t.Cleanup(r.hub.Close)
	return r
}

func testHeader(dst []byte, rev int64) []byte {
	h := &pb.ResponseHeader{ClusterId: 0xcdf818194e3a8c32, MemberId: 0x8e9e05c52164694d, Revision: rev, RaftTerm: 2}
	b, err := h.MarshalVT()
	if err != nil {
		panic(err)
	}
	return append(dst, b...)
}

// txn commits and publishes one revision.
func (r *rig) txn(ops ...op) int64 {
	evs := r.m.commit(ops...)
	_, rev := r.m.Bounds()
	r.hub.Publish(evs, rev)
	return rev
}

// client is a stream and what it received.
type client struct {
	t     testing.TB
	s     *Stream
	ready chan struct{}
	buf   []byte

	signals, fills atomic.Int64
}

func (r *rig) open() *client {
	c := &client{t: r.t, ready: make(chan struct{}, 1)}
	c.s = r.hub.OpenStream(StreamOptions{Ready: c.signal})
	r.t.Cleanup(c.s.Close)
	return c
}

func (c *client) signal() {
	if c.signals.Add(1) > c.fills.Load()+1 {
		panic("ready called twice without a Fill in between")
	}
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

func (c *client) create(req *pb.WatchCreateRequest) {
	c.t.Helper()
	if err := c.s.Create(req); err != nil {
		c.t.Fatalf("create: %v", err)
	}
}

// fill reads what is there now, up to maxBytes.
func (c *client) fill(maxBytes int) (out []*pb.WatchResponse, more bool) {
	c.t.Helper()
	var starts, sizes []int
	c.fills.Add(1)
	buf, more := c.s.Fill(c.buf[:0], maxBytes, func(dst []byte, n int) []byte {
		dst = append(dst, 0xee, 0xee)
		starts, sizes = append(starts, len(dst)), append(sizes, n)
		return dst
	})
	c.buf = buf
	end := 0
	for i, at := range starts {
		if at != end+2 || at+sizes[i] > len(buf) {
			c.t.Fatalf("message %d of %d bytes at %d, the one before ends at %d of %d", i, sizes[i], at, end, len(buf))
		}
		end = at + sizes[i]
		resp := new(pb.WatchResponse)
		if err := resp.UnmarshalVT(slices.Clone(buf[at:end])); err != nil {
			c.t.Fatalf("message %d: %v", i, err)
		}
		out = append(out, resp)
	}
	if end != len(buf) {
		c.t.Fatalf("%d bytes after the last message", len(buf)-end)
	}
	return out, more
}

// drain reads until the queue is empty.
func (c *client) drain() (out []*pb.WatchResponse) {
	c.t.Helper()
	for {
		got, more := c.fill(1 << 20)
		out = append(out, got...)
		if !more {
			select {
			case <-c.ready:
			default:
				return out
			}
		}
	}
}

// show is a response in one line, headers by their revision.
func show(r *pb.WatchResponse) string {
	var b strings.Builder
	fmt.Fprintf(&b, "@%d id=%d", r.Header.GetRevision(), r.WatchId)
	if r.Created {
		b.WriteString(" created")
	}
	if r.Canceled {
		b.WriteString(" canceled")
	}
	if r.CompactRevision != 0 {
		fmt.Fprintf(&b, " compact=%d", r.CompactRevision)
	}
	if r.CancelReason != "" {
		fmt.Fprintf(&b, " reason=%q", r.CancelReason)
	}
	if r.Fragment {
		b.WriteString(" fragment")
	}
	for _, e := range r.Events {
		fmt.Fprintf(&b, " %s", showEvent(e))
	}
	return b.String()
}

func showEvent(e *mvccpb.Event) string {
	s := fmt.Sprintf("put(%s=%s)@%d", e.Kv.Key, e.Kv.Value, e.Kv.ModRevision)
	if e.Type == mvccpb.Event_DELETE {
		s = fmt.Sprintf("del(%s)@%d", e.Kv.Key, e.Kv.ModRevision)
	}
	if e.PrevKv != nil {
		s += fmt.Sprintf("<%s@%d", e.PrevKv.Value, e.PrevKv.ModRevision)
	}
	return s
}

// want compares responses with lines.
func want(t testing.TB, got []*pb.WatchResponse, lines ...string) {
	t.Helper()
	shown := make([]string, len(got))
	for i, r := range got {
		shown[i] = show(r)
	}
	if !slices.Equal(shown, lines) {
		t.Fatalf("got:\n\t%s\nwant:\n\t%s", strings.Join(shown, "\n\t"), strings.Join(lines, "\n\t"))
	}
}
