package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"quire/engine/etcdfile"

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
	if len(marks) < 300/MarkEvery {
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
	if seen < 100/MarkEvery {
		t.Fatalf("only %d marks after the restart", seen)
	}
}

func TestRollingRing(t *testing.T) {
	r := rolling{known: true}
	for i := uint64(1); i <= MarkEvery*(keptMarks+100); i++ {
		if i%(MarkEvery*1000) != 0 { // as if an entry had not been applied here
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
	for _, i := range []uint64{0, 1, marks[0].Index - MarkEvery, MarkEvery * 2000, marks[keptMarks-1].Index + MarkEvery} {
		if m, ok := r.at(i); ok {
			t.Errorf("mark %d is %v", i, m)
		}
	}
}

// TestDivergentMemberServesNothing: the alarm of another member refuses writes
// only, and all of them, as in etcd; a lease that a clock has ended, too.
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
	expiry := AppendOp(nil, OpLeaseExpire, AppendExpire(nil, 1, []int64{1}))
	for _, write := range [][]byte{op(t, OpPut, &pb.PutRequest{Key: []byte("k")}), expiry} {
		if rep := r.apply(write); rep[0].Err != ErrCorrupt {
			t.Errorf("a write: %v", rep[0].Err)
		}
	}
	alarm(pb.AlarmRequest_ACTIVATE, r.id)
	check(ErrCorrupt)
	r.crash()
	check(ErrCorrupt)
	alarm(pb.AlarmRequest_DEACTIVATE, r.id)
	check(nil)
}

// TestRollingImport: stores that were made of the same contents have the same
// hash, whether etcd's database held all of them or its log the last; others do
// not.
func TestRollingImport(t *testing.T) {
	source := newRig(t, 1)
	source.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}))
	source.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("a"), Value: []byte("2")}))
	early, earlyState := exported(t, source.e)
	source.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("late")}))
	db, st := exported(t, source.e)

	whole, again, replayed, other := imported(t, 2, db, st, 0), imported(t, 3, db, st, 0), imported(t, 4, early, earlyState, 0), imported(t, 5, early, earlyState, 0)
	raised := imported(t, 6, db, st, 10)
	if err := replayed.e.ApplyEtcd(&etcdfile.Entry{Index: 40, Term: 3, Data: etcdPut(t, "late")}, true); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*rig{whole, replayed} {
		if err := r.e.Rebase(); err != nil {
			t.Fatal(err)
		}
	}
	mark := func(r *rig) RollingMark {
		for range MarkEvery {
			r.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k")}))
		}
		m, ok := r.e.RollingMark(MarkEvery)
		if !ok {
			t.Fatal("no mark")
		}
		return m
	}
	want := mark(whole)
	if got := mark(again); got != want {
		t.Errorf("the same database gives %v and %v", want, got)
	}
	if got := mark(replayed); got != want {
		t.Errorf("the same contents give %v and, replayed, %v", want, got)
	}
	if got := mark(other); got.Sum == want.Sum {
		t.Error("other contents give the same hash")
	}
	if got := mark(raised); got.Sum == want.Sum {
		t.Error("a raised revision gives the same hash")
	}
}

// TestRollingOfABrokenEntry: an entry that could not be applied as a whole is
// nothing that could be compared.
func TestRollingOfABrokenEntry(t *testing.T) {
	r := newRig(t, 1)
	for r.index < MarkEvery-1 {
		r.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k")}))
	}
	r.quiet = true
	put := op(t, OpPut, &pb.PutRequest{Key: []byte("k")})
	half := append(binary.AppendUvarint(nil, uint64(len(put))), put...)
	half = append(half, 1, 255) // an operation of an unknown kind
	r.e.Apply(MarkEvery, 1, half, make([]interface{ Dropped(error) }, 2))
	if m, ok := r.e.RollingMark(MarkEvery); ok {
		t.Errorf("mark %v", m)
	}
	if _, _, ok := r.e.RollingEnds(); ok {
		t.Error("there is a mark")
	}
}

// BenchmarkRolling is what one put adds to the apply path.
func BenchmarkRolling(b *testing.B) {
	r := rolling{known: true}
	rec := make([]byte, 100)
	b.ReportAllocs()
	for i := range b.N {
		r.record(rec)
		r.operation(OpPut, int64(i), false)
		if i%16 == 0 { // sixteen operations in an entry
			r.mark(uint64(i/16), int64(i))
		}
	}
}
