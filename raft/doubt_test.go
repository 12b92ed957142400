package raft

import (
	"encoding/binary"
	"errors"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// inDoubt is a member of three, or of so many, that starts in term 5 with entries up
// to 4, of which 3 is known to be committed, and without what came after them.
func inDoubt(t *testing.T, voters ...uint64) *peers {
	t.Helper()
	p := newPeers(t, voters, nil)
	p.settle()
	p.heartbeat(2, 5)
	p.settle()
	term := uint64(5)
	p.append(5, 1, 1, 3, &raftpb.Entry{Term: &term, Index: new(uint64(2))}, &raftpb.Entry{Term: &term, Index: new(uint64(3))}, &raftpb.Entry{Term: &term, Index: new(uint64(4))})
	p.settle()
	if s := p.n.Status(); s.LastIndex != 4 || s.Commit != 3 {
		t.Fatalf("%+v", s)
	}
	p.reopen(Found{Doubtful: true, After: Pos(p.log.total())})
	return p
}

// reopen starts the member again; its log says what it has found.
func (p *peers) reopen(found Found) {
	p.t.Helper()
	p.log, p.out = p.log.crash(0), nil
	p.log.found = found
	p.sm = newModel(p.n.mu.c.mem.conf.GetVoters()...)
	cfg := singleConfig()
	cfg.ConfState, cfg.Transport, cfg.Session = EncodeConfState(p.n.mu.c.mem.conf.GetVoters(), nil), p, 78
	var err error
	if p.n, p.st, err = OpenManual(cfg, p.log.open, p.sm); err != nil {
		p.t.Fatal(err)
	}
	p.settle()
}

// append has the leader, member 2, send entries.
func (p *peers) append(term, prev, prevTerm, commit uint64, ents ...*raftpb.Entry) {
	p.t.Helper()
	p.step(&raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), Term: &term, Index: &prev, LogTerm: &prevTerm, Commit: &commit, Entries: ents})
}

// question is what the member asks its leader; nil: nothing.
func (p *peers) question() *raftpb.Message {
	for _, m := range p.take(raftpb.MsgAppResp) {
		if isQuestion(m) {
			return m
		}
	}
	return nil
}

// answer is the leader's, with the end of its log.
func (p *peers) answer(q *raftpb.Message, last uint64, ents ...*raftpb.Entry) {
	p.t.Helper()
	ctx := append([]byte("doubt!"), q.GetContext()[len(doubtQuestion):]...)
	prevTerm := uint64(5)
	p.step(&raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Index: new(q.GetIndex()), LogTerm: &prevTerm,
		Commit: new(uint64(3)), Entries: ents, Context: binary.LittleEndian.AppendUint64(ctx, last)})
}

// TestDoubt: a member in doubt neither votes nor campaigns, takes heartbeats that
// promise it more than it has, asks its leader, and is a member like others when it
// has what the leader had: also after further starts, for which that is written down.
func TestDoubt(t *testing.T) {
	p := inDoubt(t, 1, 2, 3)
	vote := &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(3)), To: new(uint64(1)), Term: new(uint64(9)), Index: new(uint64(90)), LogTerm: new(uint64(8))}
	if err := p.n.Step(vote); !errors.Is(err, errInDoubt) || !p.n.Status().IsDoubtful {
		t.Fatalf("votes: %v", err)
	}
	p.n.Campaign()
	for range 40 {
		p.st.Tick()
	}
	if m := append(p.take(raftpb.MsgPreVote), p.take(raftpb.MsgVote)...); len(m) != 0 {
		t.Fatalf("campaigns: %v", m)
	}
	p.step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Commit: new(uint64(70))})
	p.out = nil
	// What the leader sends by itself comes behind what is lost: nothing is answered,
	// or it would be sent for ever.
	p.append(5, 6, 5, 70)
	p.settle()
	if m := p.take(raftpb.MsgAppResp); len(m) != 0 {
		t.Fatalf("answers %v", m)
	}
	p.st.Tick()
	q := p.question()
	if q == nil || q.GetTo() != 2 || q.GetIndex() != 4 {
		t.Fatalf("asks %v", q)
	}
	term := uint64(5)
	p.answer(q, 6, &raftpb.Entry{Term: &term, Index: new(uint64(5))})
	p.settle()
	if !p.n.Status().IsDoubtful {
		t.Fatal("not in doubt any more, although something is missing")
	}
	if q = p.question(); q == nil || q.GetIndex() != 5 {
		t.Fatalf("does not go on to ask: %v", q)
	}
	p.answer(q, 9, &raftpb.Entry{Term: &term, Index: new(uint64(6))})
	if !p.n.Status().IsDoubtful {
		t.Fatal("not in doubt any more, although the entry is not durable")
	}
	p.settle()
	if p.n.Status().IsDoubtful {
		t.Fatal("still in doubt")
	}
	found := p.log.found
	p.reopen(found)
	if p.n.Status().IsDoubtful {
		t.Fatal("in doubt again at the next start")
	}
}

// TestDoubtStays: as long as nothing has made it good, further starts are in doubt
// too, and answers to another run or of another term do not count.
func TestDoubtStays(t *testing.T) {
	p := inDoubt(t, 1, 2, 3)
	p.heartbeat(2, 5)
	p.st.Tick()
	q := p.question()
	p.reopen(p.log.found)
	p.n.cfg.Session = 99
	p.heartbeat(2, 5)
	p.answer(q, 4)
	p.settle()
	if !p.n.Status().IsDoubtful {
		t.Fatal("an answer to an earlier run has counted")
	}
}

// TestDoubtOfTwo: where everybody is needed anyway a member in doubt campaigns and
// votes, and says that it is in doubt.
func TestDoubtOfTwo(t *testing.T) {
	p := inDoubt(t, 1, 2)
	for range 40 {
		p.st.Tick()
	}
	if m := p.take(raftpb.MsgPreVote); len(m) == 0 || !isDoubtful(m[0]) {
		t.Errorf("campaigns with %v", m)
	}
	p.step(&raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(2)), Term: new(uint64(9)), Index: new(uint64(90)), LogTerm: new(uint64(8))})
	p.settle()
	if m := p.take(raftpb.MsgVoteResp); len(m) != 1 || m[0].GetReject() || !isDoubtful(m[0]) {
		t.Errorf("votes %v", m)
	}
	p = inDoubt(t, 1, 2)
	p.n.Campaign()
	for _, typ := range []raftpb.MessageType{raftpb.MsgPreVoteResp, raftpb.MsgVoteResp} {
		p.step(&raftpb.Message{Type: typ.Enum(), From: new(uint64(2)), Term: new(uint64(6))})
		p.settle()
	}
	if s := p.n.Status(); !s.IsLeader || s.IsDoubtful {
		t.Errorf("elected by everybody: %+v", s)
	}
}

// TestGrantsInDoubt: a candidate counts the grant of a member in doubt only where
// there are two voters, and no change of that may have been committed.
func TestGrantsInDoubt(t *testing.T) {
	for _, tc := range []struct {
		name   string
		voters []uint64
		change bool
		typ    raftpb.ConfChangeType
		wins   bool
	}{
		{"of two", []uint64{1, 2}, false, 0, true},
		{"of three", []uint64{1, 2, 3}, false, 0, false},
		{"of two, perhaps of three", []uint64{1, 2}, true, raftpb.ConfChangeAddNode, false},
		{"of two, perhaps with a learner", []uint64{1, 2}, true, raftpb.ConfChangeAddLearnerNode, true},
	} {
		p := newPeers(t, tc.voters, nil)
		p.settle()
		p.heartbeat(2, 5)
		p.settle()
		term := uint64(5)
		e := &raftpb.Entry{Term: &term, Index: new(uint64(2))}
		if tc.change {
			_, data, err := frameConfChange(confChangeBytes(t, tc.typ, 3), []byte{frameLocal})
			if err != nil {
				t.Fatal(err)
			}
			e.Type, e.Data = raftpb.EntryConfChangeV2.Enum(), data
		}
		p.append(5, 1, 1, 1, e)
		p.settle()
		for range 25 {
			p.st.Tick()
		}
		p.settle()
		for _, typ := range []raftpb.MessageType{raftpb.MsgPreVoteResp, raftpb.MsgVoteResp} {
			err := p.n.Step(&raftpb.Message{Type: typ.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(6)), Context: []byte("doubt")})
			if got := !errors.Is(err, errInDoubt); got != tc.wins {
				t.Errorf("%s: %v counts: %v, %v", tc.name, typ, got, err)
			}
			p.settle()
		}
		request := &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(20)), Index: new(uint64(90)), LogTerm: new(uint64(8)), Context: []byte("doubt")}
		leads := p.n.Status().IsLeader
		if err := p.n.Step(request); errors.Is(err, errInDoubt) == tc.wins {
			t.Errorf("%s: a request in doubt: %v", tc.name, err)
		}
		if leads != tc.wins {
			t.Errorf("%s: leads: %v", tc.name, leads)
		}
	}
}

// TestDoubtIsAnswered: a leader that believes a follower to have entries sends them
// again when that is in doubt, and a snapshot if it does not have them in memory.
func TestDoubtIsAnswered(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.lead()
	for range 3 {
		if err := p.n.Propose([]byte("op"), nil); err != nil {
			t.Fatal(err)
		}
		p.settle()
	}
	p.step(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(uint64(3)), Term: new(uint64(2)), Index: new(uint64(5))})
	p.settle()
	p.out = nil
	ask := func(index uint64) []*raftpb.Message {
		p.step(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(uint64(3)), Term: new(uint64(2)), Index: &index, Reject: new(true),
			Context: binary.LittleEndian.AppendUint64([]byte("doubt?"), 5)})
		out := p.out
		p.out = nil
		return out
	}
	m := ask(3)
	if len(m) != 1 || m[0].GetType() != raftpb.MsgApp || m[0].GetTo() != 3 || m[0].GetIndex() != 3 || len(m[0].GetEntries()) != 2 {
		t.Fatalf("answers %v", m)
	}
	ctx := m[0].GetContext()
	if len(ctx) != len(doubtAnswer)+16 || binary.LittleEndian.Uint64(ctx[len(ctx)-8:]) != 5 {
		t.Errorf("says %x of its log's end", ctx)
	}
	if m = ask(5); len(m) != 1 || len(m[0].GetEntries()) != 0 {
		t.Errorf("answers %v to who lacks nothing", m)
	}
	if m = ask(6); len(m) != 0 {
		t.Errorf("answers %v to who has more", m)
	}
	if to := p.n.mu.c.transferAway(); to != 2 {
		t.Errorf("hands over to member %x, 3 is in doubt", to)
	}
}

// TestTermAndVoteAreWrittenTwice: what depends on them waits until a second copy is
// durable, which was begun when the first one was.
func TestTermAndVoteAreWrittenTwice(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.settle()
	p.out = nil
	writes := p.log.writes
	p.step(&raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(3)), Term: new(uint64(9)), Index: new(uint64(90)), LogTerm: new(uint64(8))})
	complete := func() {
		p.log.sync()
		if err := p.st.Complete(); err != nil {
			t.Fatal(err)
		}
	}
	complete()
	if m := p.take(raftpb.MsgVoteResp); len(m) != 0 {
		t.Fatalf("votes after one write: %v", m)
	}
	if p.log.writes != writes+2 {
		t.Fatalf("%d writes", p.log.writes-writes)
	}
	complete()
	if m := p.take(raftpb.MsgVoteResp); len(m) != 1 || m[0].GetReject() {
		t.Fatalf("after two writes: %v", m)
	}
	recs := p.log.recs
	a, _ := decodeState(recs[len(recs)-2])
	b, _ := decodeState(recs[len(recs)-1])
	if a != b || a.term != 9 || a.vote != 3 {
		t.Errorf("written: %+v, %+v", a, b)
	}
}

// TestReplacedState: a state that came from a peer may be ahead of the log; the log
// then goes on behind it. Without Config.Replaced that is refused.
func TestReplacedState(t *testing.T) {
	for _, applied := range []uint64{3, 40} {
		p := newPeers(t, []uint64{1, 2, 3}, nil)
		p.settle()
		p.heartbeat(2, 5)
		p.settle()
		term := uint64(5)
		p.append(5, 1, 1, 1, &raftpb.Entry{Term: &term, Index: new(uint64(2))}, &raftpb.Entry{Term: &term, Index: new(uint64(3))})
		p.settle()
		cfg := singleConfig()
		cfg.NewLog, cfg.ConfState, cfg.Transport = RefuseNewLog, EncodeConfState([]uint64{1, 2, 3}, nil), p
		cfg.Applied, cfg.AppliedTerm = Index(applied), 6
		log := p.log.crash(0)
		if _, _, err := OpenManual(cfg, log.open, newModel(1, 2, 3)); err == nil {
			t.Fatalf("applied %d: not refused", applied)
		}
		log = p.log.crash(0)
		log.auto = true
		cfg.Replaced = true
		n, _, err := OpenManual(cfg, log.open, newModel(1, 2, 3))
		if err != nil {
			t.Fatal(err)
		}
		if s := n.Status(); s.LastIndex != Index(applied) || s.Commit != Index(applied) {
			t.Errorf("applied %d: %+v", applied, s)
		}
		again := log.crash(0)
		cfg.Replaced = false
		if _, _, err := OpenManual(cfg, again.open, newModel(1, 2, 3)); err != nil {
			t.Errorf("applied %d: the next start: %v", applied, err)
		}
	}
}
