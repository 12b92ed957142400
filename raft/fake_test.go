package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

var errFakeClosed = errors.New("fake log: closed")

// fakeLog keeps records in memory. A record is durable after a "now durable"
// step: at once when auto is set, else when the test calls sync.
type fakeLog struct {
	mu      sync.Mutex
	cond    *sync.Cond
	recs    [][]byte
	first   int // position of recs[0] is first+1
	written int // submitted up to here (count of records ever)
	durable int
	told    int
	auto    bool
	closed  bool
	failing error
	writes  int
	found   Found
}

func newFakeLog(auto bool) *fakeLog {
	l := &fakeLog{auto: auto}
	l.cond = sync.NewCond(&l.mu)
	return l
}

func (l *fakeLog) open(replay func(pos Pos, rec []byte) error) (Log, Found, error) {
	for i, r := range l.recs {
		if err := replay(Pos(l.first+i+1), r); err != nil {
			return nil, Found{}, err
		}
	}
	return l, l.found, nil
}

func (l *fakeLog) total() int { return l.first + len(l.recs) }

func (l *fakeLog) AppendParts(parts ...[]byte) (Pos, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing != nil {
		return 0, l.failing
	}
	if l.closed {
		return 0, errFakeClosed
	}
	var rec []byte
	for _, p := range parts {
		rec = append(rec, p...)
	}
	l.recs = append(l.recs, rec)
	return Pos(l.total()), nil
}

func (l *fakeLog) Submit(ops int, force bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing != nil {
		return l.failing
	}
	l.written = l.total()
	l.writes++
	if l.auto {
		l.durable = l.written
	}
	l.cond.Broadcast()
	return nil
}

func (l *fakeLog) Wait() (Pos, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.failing != nil:
			return 0, l.failing
		case l.durable > l.told:
			l.told = l.durable
			return Pos(l.durable), nil
		case l.closed:
			return 0, errFakeClosed
		}
		l.cond.Wait()
	}
}

// sync makes everything that was submitted durable.
func (l *fakeLog) sync() Pos {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = l.written
	l.cond.Broadcast()
	return Pos(l.durable)
}

func (l *fakeLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = err
	l.cond.Broadcast()
}

func (l *fakeLog) TrimBefore(p Pos) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := int(p) - 1 - l.first; n > 0 {
		l.recs = append([][]byte(nil), l.recs[n:]...)
		l.first += n
	}
	return nil
}

func (l *fakeLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.durable = l.written
	l.cond.Broadcast()
	return nil
}

// crash returns the log as a power cut leaves it: what was durable, and keep
// more of the records after it.
func (l *fakeLog) crash(keep int) *fakeLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := newFakeLog(l.auto)
	end := min(max(l.durable, l.first)+keep, l.total())
	n.first = l.first
	n.recs = append([][]byte(nil), l.recs[:end-l.first]...)
	n.written, n.durable, n.told = end, end, end
	return n
}

// model is a state machine that remembers everything it was given.
type model struct {
	mu       sync.Mutex
	ops      []string
	applied  entryID
	flushed  uint64 // applied index at the last Flush
	conf     *raftpb.ConfState
	pendingW []*fakeWaiter
	leads    []leadEvent
	groups   int
	inside   bool
	terms    []uint64
}

func newModel(voters ...uint64) *model {
	return &model{conf: &raftpb.ConfState{Voters: voters}}
}

func (m *model) enter() func() {
	m.mu.Lock()
	if m.inside {
		panic("state machine entered twice")
	}
	m.inside = true
	return func() { m.inside = false; m.mu.Unlock() }
}

func (m *model) move(index, term uint64) {
	if m.applied.index != 0 && index != m.applied.index+1 {
		panic(fmt.Sprintf("apply %d after %d", index, m.applied.index))
	}
	m.applied = entryID{index, term}
	m.terms = append(m.terms, term)
}

func (m *model) Apply(index, term uint64, data []byte, waiters []interface{ Dropped(error) }) {
	defer m.enter()()
	m.move(index, term)
	i := 0
	for len(data) > 0 {
		op, rest, err := NextOp(data)
		if err != nil {
			panic(err)
		}
		data = rest
		m.ops = append(m.ops, string(op))
		if waiters != nil && waiters[i] != nil {
			w := waiters[i].(*fakeWaiter)
			if w.op != string(op) {
				panic(fmt.Sprintf("waiter of %q got %q", w.op, op))
			}
			m.pendingW = append(m.pendingW, w)
		}
		i++
	}
	if waiters != nil && i != len(waiters) {
		panic(fmt.Sprintf("%d operations for %d waiters", i, len(waiters)))
	}
}

func (m *model) ApplyConfChange(index, term uint64, cc []byte, waiter interface{ Dropped(error) }) []byte {
	defer m.enter()()
	m.move(index, term)
	var v raftpb.ConfChangeV2
	if err := proto.Unmarshal(cc, &v); err != nil {
		panic(err)
	}
	m.ops = append(m.ops, "cc:"+raftpb.ConfChangesToString(v.Changes))
	if waiter != nil {
		m.pendingW = append(m.pendingW, waiter.(*fakeWaiter))
	}
	if string(v.Context) == "refuse" {
		return nil
	}
	id := v.Changes[0].GetNodeId()
	m.conf.Voters, m.conf.Learners = without(m.conf.Voters, id), without(m.conf.Learners, id)
	switch v.Changes[0].GetType() {
	case raftpb.ConfChangeAddNode:
		m.conf.Voters = append(m.conf.Voters, id)
	case raftpb.ConfChangeAddLearnerNode:
		m.conf.Learners = append(m.conf.Learners, id)
	}
	return EncodeConfState(m.conf.Voters, m.conf.Learners)
}

func without(ids []uint64, id uint64) []uint64 {
	var out []uint64
	for _, x := range ids {
		if x != id {
			out = append(out, x)
		}
	}
	return out
}

func (m *model) Flush() {
	defer m.enter()()
	m.groups++
	m.flushed = m.applied.index
	for _, w := range m.pendingW {
		w.finish("applied")
	}
	m.pendingW = m.pendingW[:0]
}

func (m *model) LeaderChanged(lead, term uint64, isLeader bool) {
	defer m.enter()()
	m.leads = append(m.leads, leadEvent{lead, term, isLeader})
}

func (m *model) snapshotOps() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.ops...)
}

// fakeWaiter checks that it is told exactly once.
type fakeWaiter struct {
	op   string
	mu   sync.Mutex
	done chan struct{}
	out  string
	err  error
}

func newWaiter(op string) *fakeWaiter { return &fakeWaiter{op: op, done: make(chan struct{})} }

func (w *fakeWaiter) finish(out string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out != "" {
		panic(fmt.Sprintf("waiter of %q: %s after %s", w.op, out, w.out))
	}
	w.out = out
	close(w.done)
}

func (w *fakeWaiter) Dropped(err error) {
	w.err = err
	w.finish("dropped: " + err.Error())
}

func (w *fakeWaiter) result() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out
}

type fakeReader struct {
	done chan error
}

func newReader() *fakeReader { return &fakeReader{done: make(chan error, 2)} }

func (r *fakeReader) ReadReady(err error) { r.done <- err }

func opName(client, i int) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(client))) + fmt.Sprint(":", i)
}
