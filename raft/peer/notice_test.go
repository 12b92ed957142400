package peer

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// commitMsg is an append without entries.
func commitMsg(from, to, index, commit uint64) *raftpb.Message {
	m := appMsg(from, to, index)
	m.Commit = &commit
	return m
}

// TestNotices: an append that only tells the commit index waits for one that has
// more to say, goes with whatever else goes to the peer, and after a moment by
// itself; it does not wait when the peer has just asked for something.
func TestNotices(t *testing.T) {
	a, b := startNode(t, 1, nil), startNode(t, 2, nil)
	join(t, a, b)
	b.connected(t, 1)
	a.notices.wait.Store(int64(time.Hour))
	got := func(what string, want ...uint64) { // the commit indexes that have come
		t.Helper()
		b.raft.await(t, what, func() bool { return len(b.raft.msgs) >= len(want) })
		b.raft.mu.Lock()
		defer b.raft.mu.Unlock()
		for i, m := range b.raft.msgs {
			if m.GetType() == raftpb.MsgApp && m.GetCommit() != want[i] {
				t.Fatalf("%s: message %d has commit index %d, want %d", what, i, m.GetCommit(), want[i])
			}
		}
		if len(b.raft.msgs) != len(want) {
			t.Fatalf("%s: %d messages, want %d", what, len(b.raft.msgs), len(want))
		}
		b.raft.msgs = nil
	}
	send := func(ms ...*raftpb.Message) { a.Send(ms) }
	entry := func(index, commit uint64) *raftpb.Message {
		m := appMsg(1, 2, index, []byte("data"))
		m.Commit = &commit
		return m
	}

	send(commitMsg(1, 2, 5, 5))
	send(commitMsg(1, 2, 6, 6))
	send(entry(6, 6))
	got("an append says it", 6)

	send(commitMsg(1, 2, 9, 9))
	send(entry(8, 7)) // sent again, from before
	got("an append says less", 9, 7)

	send(commitMsg(1, 2, 10, 10))
	send(beat(1, 2))
	b.raft.await(t, "with a heartbeat", func() bool { return len(b.raft.msgs) == 2 })
	b.raft.mu.Lock()
	b.raft.msgs = nil
	b.raft.mu.Unlock()

	a.notices.wait.Store(int64(noticeWait))
	a.notices.armed.Store(false)
	send(commitMsg(1, 2, 11, 11))
	got("by itself", 11)

	a.notices.wait.Store(int64(time.Hour))
	b.Send([]*raftpb.Message{{Type: raftpb.MsgReadIndex.Enum(), From: new(uint64(2)), To: new(uint64(1)), Context: []byte("c")}})
	a.raft.await(t, "the question", func() bool { return len(a.raft.msgs) == 1 })
	send(commitMsg(1, 2, 12, 12))
	got("at once", 12)
}
