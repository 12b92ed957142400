package raft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func confChangeBytes(t *testing.T, typ raftpb.ConfChangeType, id uint64) []byte {
	t.Helper()
	b, err := proto.Marshal(&raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: typ.Enum(), NodeId: &id}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestStandAlone adds a voter that never comes, and a learner, and then forces the
// member to go on alone. What it had in its log is kept, committed or not.
func TestStandAlone(t *testing.T) {
	l, sm := newFakeLog(false), newModel(1)
	n, st, err := OpenManual(singleConfig(), l.open, sm)
	if err != nil {
		t.Fatal(err)
	}
	settleManualFake(t, n, st, l)
	propose := func(op string) {
		if err := n.Propose([]byte(op), nil); err != nil {
			t.Fatal(err)
		}
		settleManualFake(t, n, st, l)
	}
	propose("before")
	for id, typ := range []raftpb.ConfChangeType{2: raftpb.ConfChangeAddLearnerNode, 3: raftpb.ConfChangeAddNode} {
		if id > 1 {
			if err := n.ProposeConfChange(confChangeBytes(t, typ, uint64(id)), nil); err != nil {
				t.Fatal(err)
			}
			settleManualFake(t, n, st, l)
		}
	}
	propose("in the log, without a quorum")
	if got := sm.snapshotOps(); len(got) != 3 {
		t.Fatalf("applied %q", got)
	}
	reopen := func(from *fakeLog, alone bool) (*fakeLog, *model, *Node, *Stepper) {
		cfg := singleConfig()
		cfg.NewLog, cfg.StandAlone = RefuseNewLog, alone
		again, sm := from.crash(len(from.recs)), newModel(1)
		again.auto = true // the start itself waits for its writes
		n, st, err := OpenManual(cfg, again.open, sm)
		if err != nil {
			t.Fatal(err)
		}
		again.auto = false
		settleManualFake(t, n, st, again)
		return again, sm, n, st
	}
	if _, _, n, _ := reopen(l, false); n.Status().IsLeader {
		t.Fatal("leads without a quorum")
	}
	want := []string{"before", "cc:l2", "cc:v3", "in the log, without a quorum", "cc:r3", "cc:r2", "after"}
	forced, sm2, n2, st2 := reopen(l, true)
	for round := range 2 {
		for range 30 { // an election timeout, and more
			st2.Tick()
			settleManualFake(t, n2, st2, forced)
		}
		if s := n2.Status(); !s.IsLeader {
			t.Fatalf("round %d: does not lead: %+v", round, s)
		}
		if round == 0 {
			if err := n2.Propose([]byte("after"), nil); err != nil {
				t.Fatal(err)
			}
			settleManualFake(t, n2, st2, forced)
		}
		if got := sm2.snapshotOps(); !slices.Equal(got, want) {
			t.Fatalf("round %d: applied %q, want %q", round, got, want)
		}
		forced, sm2, n2, st2 = reopen(forced, round == 1) // it holds without the flag, and again with it
	}
}

// TestStandAloneCrash cuts the power after every record that the forced start
// writes: the next start, forced or not, accepts what is there.
func TestStandAloneCrash(t *testing.T) {
	l, sm := newFakeLog(true), newModel(1)
	cfg := singleConfig()
	n, st, err := OpenManual(cfg, l.open, sm)
	if err != nil {
		t.Fatal(err)
	}
	settleManualFake(t, n, st, l)
	for _, id := range []uint64{2, 3} {
		if err := n.ProposeConfChange(confChangeBytes(t, raftpb.ConfChangeAddNode, id), nil); err != nil {
			t.Fatal(err)
		}
		settleManualFake(t, n, st, l)
	}
	before := len(l.recs)
	cfg.NewLog, cfg.StandAlone = RefuseNewLog, true
	forced := l.crash(len(l.recs))
	if _, _, err := OpenManual(cfg, forced.open, newModel(1)); err != nil {
		t.Fatal(err)
	}
	if len(forced.recs) < before+2 {
		t.Fatalf("%d records, %d before", len(forced.recs), before)
	}
	for keep := before; keep <= len(forced.recs); keep++ {
		for _, alone := range []bool{false, true} {
			cut := newFakeLog(true)
			cut.recs = slices.Clone(forced.recs[:keep])
			cfg.StandAlone = alone
			sm := newModel(1)
			n, st, err := OpenManual(cfg, cut.open, sm)
			if err != nil {
				t.Fatalf("%d records, alone %t: %v", keep, alone, err)
			}
			settleManualFake(t, n, st, cut)
			text := fmt.Sprint(sm.snapshotOps())
			if whole := keep == len(forced.recs); (alone || whole) != strings.Contains(text, "cc:r2") {
				t.Errorf("%d of %d records, alone %t: applied %s", keep, len(forced.recs), alone, text)
			}
		}
	}
}

func TestStandAloneRefuses(t *testing.T) {
	cfg := singleConfig()
	cfg.ConfState, cfg.StandAlone = EncodeConfState([]uint64{2, 3}, nil), true
	if _, _, err := OpenManual(cfg, newFakeLog(true).open, newModel(2, 3)); !errors.Is(err, ErrNotMember) {
		t.Errorf("a member that is none: %v", err)
	}
}
