package peer

import (
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// A notice is an append without entries: it tells a follower the commit index and
// nothing else. The next append tells it too. So a notice waits a moment for an
// append to carry it: with one writer at a time that saves a message, two system
// calls and a wake-up per Put and follower, a third of what a follower does for it.
//
// It does not wait if the peer has lately forwarded a proposal or asked for a read
// index: then a client there waits for it. Whatever else is sent to the peer takes
// the notice along, and nothing holds it for longer than about noticeWait, so that
// watchers at a follower see a lone write a millisecond later, at most.
const (
	noticeWait = 500 * time.Microsecond
	// askedLately is how long after its last question a peer is told at once.
	askedLately = 500 * time.Millisecond
)

// notice is what one peer has not been told yet.
type notice struct {
	asked atomic.Int64 // when the peer asked for something last, since epoch; 0: never
	mu    struct {
		sync.Mutex
		held  *raftpb.Message
		since int64
	}
}

// notices are the clock of all.
type notices struct {
	wait  atomic.Int64 // noticeWait; tests change it
	timer *time.Timer
	armed atomic.Bool
}

// noteAsked notes what a peer has sent.
func (n *notice) noteAsked(m *raftpb.Message) {
	if t := m.GetType(); t == raftpb.MsgProp || t == raftpb.MsgReadIndex {
		n.asked.Store(max(sinceEpoch(), 1))
	}
}

// hold keeps m for later, if it is a notice and may wait.
func (n *notice) hold(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgApp || len(m.GetEntries()) > 0 || len(m.GetContext()) > 0 {
		return false // with a context it answers somebody
	}
	now := sinceEpoch()
	if asked := n.asked.Load(); asked != 0 && now-asked < int64(askedLately) {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.held == nil {
		n.mu.since = now
	}
	n.mu.held = m
	return true
}

// take returns what is held and was so at least for a time.
func (n *notice) take(atLeast time.Duration) (m *raftpb.Message, rest bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m = n.mu.held; m != nil && atLeast > 0 && sinceEpoch()-n.mu.since < int64(atLeast) {
		return nil, true
	}
	n.mu.held = nil
	return m, false
}

// tellHeld puts what is held for the peer in front of m, unless m says it too.
func (p *peer) tellHeld(m *raftpb.Message) {
	held, _ := p.notice.take(0)
	if held == nil || m.GetType() == raftpb.MsgApp && saysMore(m, held) {
		return
	}
	p.tell(held)
}

func (p *peer) tell(held *raftpb.Message) {
	if p.lanes[bulk].put(held) != nil {
		p.failed(held)
		return
	}
	p.lanes[bulk].flush()
}

// saysMore: whoever gets m needs not get held.
func saysMore(m, held *raftpb.Message) bool {
	return sameTerm(m, held) && m.GetIndex() >= held.GetIndex() && m.GetCommit() >= held.GetCommit()
}

// arm sees to it that what is held leaves in time. The timer is set when it is not,
// not for each notice: a timer that is put forward wakes a thread.
func (t *Transport) arm() {
	if !t.notices.armed.Swap(true) {
		t.notices.timer.Reset(time.Duration(t.notices.wait.Load()))
	}
}

// tellAll is the timer's. A notice younger than half the time waits for the next.
func (t *Transport) tellAll() {
	t.notices.armed.Store(false)
	for _, p := range *t.peers.Load() {
		held, rest := p.notice.take(time.Duration(t.notices.wait.Load() / 2))
		if rest {
			t.arm()
		}
		if held != nil {
			p.tell(held)
		}
	}
}
