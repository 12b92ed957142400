package engine

import (
	"errors"
	"fmt"
	"testing"

	pb "quire/api/etcdserverpb"
)

// TestRollingHash: the same entries give the same hash, through a crash and a
// restart too; one byte that differs makes it differ from there on.
func TestRollingHash(t *testing.T) {
	a, b, c := newRig(t, 1), newRig(t, 2), newRig(t, 3)
	const odd = 100
	for i := range 300 {
		req := &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i%17), Value: fmt.Appendf(nil, "%d", i)}
		put := op(t, OpPut, req)
		a.apply(put)
		if b.apply(put); i == 150 {
			if err := b.e.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			b.crash()
		}
		if i == odd {
			req.Value[0]++
			put = op(t, OpPut, req)
		}
		c.apply(put)
	}
	marks := a.e.RollingMarks()
	if len(marks) < 300/markEvery {
		t.Fatalf("%d marks of 300 entries", len(marks))
	}
	seen := 0
	for _, m := range marks {
		if got, ok := a.e.RollingMark(m.Index); !ok || got != m {
			t.Fatalf("the mark of entry %d is %v, %v, listed as %v", m.Index, got, ok, m)
		}
		if other, ok := b.e.RollingMark(m.Index); ok {
			if seen++; other != m {
				t.Fatalf("after entry %d: %v, with a crash %v", m.Index, m, other)
			}
		}
		other, ok := c.e.RollingMark(m.Index)
		if before := m.Index < odd+2; !ok || (other == m) != before { // the first put is entry 2
			t.Fatalf("after entry %d: %v, %v, the other member has %v", m.Index, m, ok, other)
		}
	}
	if seen < 100/markEvery {
		t.Fatalf("only %d marks after the restart", seen)
	}
}

func TestRollingRing(t *testing.T) {
	r := rolling{known: true}
	for i := uint64(1); i <= markEvery*(keptMarks+100); i++ {
		if i%(markEvery*1000) != 0 { // as if an entry had not been applied here
			r.mark(i, int64(i))
		}
	}
	marks := r.marks()
	if len(marks) != keptMarks || marks[0].Index >= marks[1].Index {
		t.Fatalf("%d marks from %d on", len(marks), marks[0].Index)
	}
	for _, m := range marks {
		if got, ok := r.at(m.Index); !ok || got != m {
			t.Fatalf("mark %d is %v, %v", m.Index, got, ok)
		}
	}
	for _, i := range []uint64{0, 1, marks[0].Index - markEvery, markEvery * 2000, marks[keptMarks-1].Index + markEvery} {
		if m, ok := r.at(i); ok {
			t.Errorf("mark %d is %v", i, m)
		}
	}
}

// TestDivergentMemberServesNothing: the alarm of another member is no reason.
func TestDivergentMemberServesNothing(t *testing.T) {
	r := newRig(t, 1)
	r.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k")}))
	alarm := func(a pb.AlarmRequest_AlarmAction, member uint64) {
		r.apply(op(t, OpAlarm, &pb.AlarmRequest{Action: a, MemberID: member, Alarm: pb.AlarmType_CORRUPT}))
	}
	reads := func() []error {
		_, _, rangeErr := r.e.Range(&pb.RangeRequest{Key: []byte("k")}, nil)
		_, _, txnErr := r.e.ReadTxn(&pb.TxnRequest{}, nil)
		_, _, _, streamErr := r.e.RangeStream(&pb.RangeRequest{Key: []byte("k")}, 0).Next(nil)
		_, _, eventsErr := r.e.Events(nil, 1, 1, false)
		return []error{rangeErr, txnErr, streamErr, eventsErr}
	}
	check := func(want error) {
		t.Helper()
		for i, err := range reads() {
			if !errors.Is(err, want) {
				t.Errorf("read %d: %v, want %v", i, err, want)
			}
		}
	}
	alarm(pb.AlarmRequest_ACTIVATE, r.id+1)
	check(nil)
	alarm(pb.AlarmRequest_ACTIVATE, r.id)
	check(ErrCorrupt)
	r.crash()
	check(ErrCorrupt)
	alarm(pb.AlarmRequest_DEACTIVATE, r.id)
	check(nil)
}
