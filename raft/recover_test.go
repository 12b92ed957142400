package raft

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

func testEntry(index, term uint64, data string) *raftpb.Entry {
	e := &raftpb.Entry{Index: &index, Term: &term, Type: raftpb.EntryNormal.Enum()}
	if data != "" {
		e.Data = []byte(data)
	}
	return e
}

func entryRec(index, term uint64) []byte {
	e := testEntry(index, term, "\x01")
	return append(appendEntryHead(nil, e, 0), e.Data...)
}

func stateRec(term uint64) []byte { return appendState(nil, hardState{term: term, vote: 1}) }

func baseRec(index, term uint64) []byte {
	return appendBase(nil, baseRecord{member: 1, cluster: 7, at: entryID{index, term}, hs: hardState{term: term}})
}

func bootRec() []byte {
	return appendBase(nil, baseRecord{
		member: 1, cluster: 7, at: entryID{1, 1}, hs: hardState{term: 1, commit: 1}, confState: EncodeConfState([]uint64{1}, nil),
	})
}

func entryRecs(term uint64, indexes ...uint64) [][]byte {
	var out [][]byte
	for _, i := range indexes {
		out = append(out, entryRec(i, term))
	}
	return out
}

func join(groups ...[][]byte) [][]byte { return slices.Concat(groups...) }

// TestOpenChecks lists what a start accepts and what it refuses.
func TestOpenChecks(t *testing.T) {
	one := func(r ...[]byte) [][]byte { return r }
	restart := func(applied Index, term Term) Config {
		return Config{ID: 1, ClusterID: 7, Applied: applied, AppliedTerm: term, ConfState: EncodeConfState([]uint64{1}, nil)}
	}
	boot := singleConfig()
	booted := join(one(bootRec(), stateRec(2)), entryRecs(2, 2, 3, 4, 5))
	other := restart(0, 0)
	other.ID = 2
	members := boot
	members.ConfState = EncodeConfState([]uint64{1, 2}, nil)
	joiner := Config{ID: 1, ClusterID: 7, NewLog: JoinNewLog}
	badJoiner := joiner
	badJoiner.ConfState = EncodeConfState([]uint64{1}, nil)
	noVoters := boot
	noVoters.ConfState = nil
	for _, tc := range []struct {
		name string
		cfg  Config
		recs [][]byte
		want error  // nil: opens
		text string // part of the error
	}{
		{"a new log", boot, nil, nil, ""},
		{"a new log of a joiner", joiner, nil, nil, ""},
		{"a joiner with voters", badJoiner, nil, nil, "must not bring voters"},
		{"a new cluster without voters", noVoters, nil, nil, "at least one voter"},
		{"a new log that nobody asked for", restart(0, 0), nil, ErrNewLog, ""},
		{"a store without its log", restart(5, 2), nil, ErrNoLog, "applied index 5"},
		{"a store without its log, bootstrap allowed", func() Config { c := restart(5, 2); c.NewLog = BootstrapNewLog; return c }(), nil, ErrNoLog, ""},
		{"a restart before the first checkpoint", restart(0, 0), booted, nil, ""},
		{"… with the bootstrap flag still set", boot, booted, nil, ""},
		{"… with other members", members, booted, ErrHistoryMismatch, "other members"},
		{"another member's log", other, booted, ErrWrongMember, ""},
		{"a restart at a checkpoint", restart(3, 2), booted, nil, ""},
		{"a restart at the last entry", restart(5, 2), booted, nil, ""},
		{"a restart at the bootstrap", restart(1, 1), booted, nil, ""},
		{"a log that ends early", restart(6, 2), booted, ErrLogEndsEarly, "applied 6, last entry 5"},
		{"another term at the applied index", restart(3, 1), booted, ErrHistoryMismatch, "term 2 in the log and 1 in the store"},
		{"a trimmed log", restart(3, 2), join(entryRecs(2, 3, 4, 5), one(baseRec(3, 2), stateRec(2))), nil, ""},
		{"a trimmed log that starts late", restart(2, 2), join(entryRecs(2, 3, 4, 5), one(baseRec(3, 2), stateRec(2))), ErrLogStartsLate, "applied 2, first entry 4"},
		{"a trimmed log without a store", restart(0, 0), join(entryRecs(2, 3, 4, 5), one(baseRec(3, 2))), ErrNoStore, ""},
		{"a log without its base", restart(4, 2), entryRecs(2, 3, 4, 5), nil, "without a base record"},
		{"an old base after the trim point", restart(4, 2), join(entryRecs(2, 4, 5), one(baseRec(2, 2), baseRec(3, 2))), nil, ""},
		{"an old base as the first record", restart(4, 2), join(one(baseRec(2, 2)), entryRecs(2, 4, 5), one(baseRec(3, 2))), nil, ""},
		{"… and nothing newer", restart(4, 2), join(one(baseRec(2, 2)), entryRecs(2, 4, 5)), nil, "without a base record"},
		{"a replaced suffix", restart(4, 3), join(booted, one(stateRec(3)), entryRecs(3, 4, 5)), nil, ""},
		{"a gap", restart(2, 2), join(one(bootRec()), entryRecs(2, 2, 4)), nil, "entry 4 follows entry 2"},
		{"a term that goes back", restart(2, 3), join(one(bootRec()), entryRecs(3, 2), entryRecs(2, 3)), nil, "term 2"},
		{"a hard state that goes back", restart(0, 0), one(bootRec(), stateRec(5), stateRec(4)), nil, "goes back"},
		{"an entry before the base", restart(3, 2), join(one(baseRec(3, 2)), entryRecs(2, 2)), nil, "before the log's start"},
		{"a snapshot that was taken over", restart(50, 9), join(booted, one(appendIntent(nil, entryID{50, 9}))), nil, ""},
		{"a snapshot over a conflicting log", restart(4, 9), join(booted, one(appendIntent(nil, entryID{4, 9}))), nil, ""},
		{"a snapshot that was not taken over", restart(3, 2), join(booted, one(appendIntent(nil, entryID{50, 9}))), nil, ""},
		{"another snapshot", restart(50, 9), join(booted, one(appendIntent(nil, entryID{51, 9}))), ErrLogEndsEarly, ""},
		{"an empty record", boot, one([]byte{}), nil, "empty record"},
		{"an unknown record", boot, one([]byte{9}), nil, "record kind 9"},
		{"a later format", boot, one(append([]byte{recBase, 2}, make([]byte, 56)...)), nil, "format version 2"},
		{"a short entry", boot, one([]byte{recEntry, 0, 1}), nil, "entry record of 3 bytes"},
		{"a short state", boot, one([]byte{recState, 0, 1}), nil, "state record of 3 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newFakeLog(false)
			l.recs = tc.recs
			l.written, l.durable, l.told = len(tc.recs), len(tc.recs), len(tc.recs)
			_, _, err := OpenManual(tc.cfg, l.open, newModel(1))
			switch {
			case tc.want == nil && tc.text == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.want != nil && !errors.Is(err, tc.want):
				t.Errorf("got %v, want %v", err, tc.want)
			case tc.text != "" && (err == nil || !strings.Contains(err.Error(), tc.text)):
				t.Errorf("got %v, want a text with %q", err, tc.text)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "raft: ") {
				t.Errorf("%v does not say where it comes from", err)
			}
		})
	}
}

func TestConfigValidate(t *testing.T) {
	err := Config{HeartbeatMillis: 100, ElectionMillis: 50, Applied: 4}.withDefaults().Validate()
	for _, want := range []string{"ID must", "ElectionMillis is 50", "AppliedTerm is 0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if err := singleConfig().withDefaults().Validate(); err != nil {
		t.Error(err)
	}
}

// TestRestartDoesNotReadBeforeItsTerm: acknowledged entries must be applied
// again before a restarted single voter may answer a read.
func TestRestartDoesNotReadBeforeItsTerm(t *testing.T) {
	l, sm := newFakeLog(false), newModel(1)
	n, st, err := OpenManual(singleConfig(), l.open, sm)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Propose([]byte("acked"), newWaiter("acked")); err != nil {
		t.Fatal(err)
	}
	settleManualFake(t, n, st, l)
	l2, sm2 := l.crash(0), newModel(1)
	n2, st2, err := OpenManual(singleConfig(), l2.open, sm2)
	if err != nil {
		t.Fatal(err)
	}
	r := newReader()
	if n2.ReadIndex(r) {
		t.Fatal("a read before there is a leader")
	}
	for range 20 {
		l2.sync()
		if l2.durable > l2.told {
			if err := st2.Complete(); err != nil {
				t.Fatal(err)
			}
			continue // not applied yet
		}
		if len(r.done) > 0 && len(sm2.ops) == 0 {
			t.Fatal("a read was answered before the acknowledged operation was applied")
		}
		st2.Apply()
	}
	if len(r.done) != 1 || len(sm2.ops) != 1 || !n2.ReadIndex(newReader()) {
		t.Errorf("%d operations applied, inline %v", len(sm2.ops), n2.pub.inline.Load())
	}
}

// TestAloneAgain: what was committed before the others left may have been
// acknowledged by them first.
func TestAloneAgain(t *testing.T) {
	c := &core{cfg: &Config{ID: 1}, lead: leadEvent{1, 3, true}, applied: 5, termStart: 2, hs: hardState{commit: 8}}
	c.mem.set(1, &raftpb.ConfState{Voters: []uint64{1, 2}}, 3, 8)
	if c.inlineReads() {
		t.Error("inline reads of two voters")
	}
	c.mem.set(1, &raftpb.ConfState{Voters: []uint64{1}}, 5, 8)
	if c.inlineReads() {
		t.Error("inline reads at applied 5, committed 8 with others")
	}
	if c.applied = 8; !c.inlineReads() {
		t.Error("no inline reads at applied 8")
	}
}

// TestWindowAgainstModel compares the window with a plain slice.
func TestWindowAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 9))
		var w storage
		w.reset(entryID{1, 1})
		terms := map[uint64]uint64{1: 1}
		last, applied, term, pos := uint64(1), uint64(1), uint64(1), Pos(0)
		at := map[uint64]Pos{}
		for range 300 {
			switch rng.IntN(5) {
			case 0:
				applied += rng.Uint64N(last - applied + 1)
				w.forget(applied, rng.IntN(6), 1000+rng.IntN(3000))
			case 1:
				if c := w.trim.index + rng.Uint64N(applied-w.trim.index+1); c >= w.trim.index {
					if p, ok := w.trimTo(c); ok && c < last && p > at[c+1] {
						t.Fatalf("seed %d: trim before %d drops entry %d at %d", seed, p, c+1, at[c+1])
					}
				}
			case 2: // a new term, perhaps with a conflict
				term++
				last = applied + rng.Uint64N(last-applied+1)
				fallthrough
			default:
				last++
				pos++
				terms[last], at[last] = term, pos
				if err := w.append(testEntry(last, term, "x"), pos, rng.IntN(markBytes)); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			checkWindow(t, &w, terms, last, seed)
		}
	}
}

func checkWindow(t *testing.T, w *storage, terms map[uint64]uint64, last, seed uint64) {
	t.Helper()
	if w.trim.index > w.prev.index || w.lastIndex() < w.prev.index {
		t.Fatalf("seed %d: trim %d prev %d last %d", seed, w.trim.index, w.prev.index, w.lastIndex())
	}
	if w.lastIndex() != max(last, w.prev.index) {
		t.Fatalf("seed %d: last %d, want %d", seed, w.lastIndex(), last)
	}
	bytes := 0
	for i := w.trim.index; i <= w.lastIndex(); i++ {
		if got, ok := w.lookup(i); !ok || got != terms[i] {
			t.Fatalf("seed %d: term of %d is %d, want %d", seed, i, got, terms[i])
		}
		if got, err := w.Term(i); i >= w.prev.index && (err != nil || got != terms[i]) {
			t.Fatalf("seed %d: Term(%d) is %d, %v, want %d", seed, i, got, err, terms[i])
		}
	}
	if w.lastIndex() > w.prev.index {
		ents, err := w.Entries(w.prev.index+1, w.lastIndex()+1, 1<<60)
		if err != nil {
			t.Fatal(err)
		}
		for k, e := range ents {
			if e.GetIndex() != w.prev.index+1+uint64(k) || e.GetTerm() != terms[e.GetIndex()] {
				t.Fatalf("seed %d: entry %d of term %d at place %d", seed, e.GetIndex(), e.GetTerm(), k)
			}
			bytes += entryMemBytes(e)
		}
		if one, _ := w.Entries(w.prev.index+1, w.lastIndex()+1, 0); len(one) != 1 {
			t.Fatalf("seed %d: %d entries within no bytes", seed, len(one))
		}
	}
	if bytes != w.bytes {
		t.Fatalf("seed %d: %d bytes counted, %d there", seed, w.bytes, bytes)
	}
}

func TestFifoAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var f fifo[int]
	var want []int
	for i := range 20000 {
		switch r := rng.IntN(10); {
		case r < 5:
			f.push(i)
			want = append(want, i)
		case r < 6:
			f.pushFront(i)
			want = append([]int{i}, want...)
		case r < 9 && len(want) > 0:
			if got := f.pop(); got != want[0] {
				t.Fatalf("pop %d, want %d", got, want[0])
			}
			want = want[1:]
		case len(want) > 0 && rng.IntN(20) == 0:
			n := rng.IntN(len(want) + 1)
			f.truncate(n)
			want = want[:n]
		case len(want) > 0:
			k := rng.IntN(len(want))
			if got := f.remove(k); got != want[k] {
				t.Fatalf("remove %d, want %d", got, want[k])
			}
			want = slices.Delete(slices.Clone(want), k, k+1)
		}
		if f.len() != len(want) {
			t.Fatalf("%d items, want %d", f.len(), len(want))
		}
		for k, v := range want {
			if *f.at(k) != v {
				t.Fatalf("item %d is %d, want %d", k, *f.at(k), v)
			}
		}
	}
}

func TestSeqWindow(t *testing.T) {
	var s seqWindow
	seen := map[uint64]bool{}
	rng := rand.New(rand.NewPCG(2, 2))
	top := uint64(0)
	for range 10000 {
		seq := 1 + top + rng.Uint64N(5)
		if rng.IntN(2) == 0 {
			seq -= min(seq-1, rng.Uint64N(100))
		}
		first := s.first(seq)
		if first && seen[seq] {
			t.Fatalf("%d taken twice", seq)
		}
		if !first && !seen[seq] && top-seq < 64 {
			t.Fatalf("%d refused, it is new and only %d behind", seq, top-seq)
		}
		if first {
			seen[seq] = true
		}
		top = max(top, seq)
	}
	if !s.first(top + 1000) {
		t.Error("a leap is refused")
	}
}

func TestGate(t *testing.T) {
	g := gate{depth: 3}
	want := func(waiting int, ok bool) {
		t.Helper()
		if got := g.permits(waiting); got != ok {
			t.Errorf("%d waiting, %d ops in %d writes: permits %v", waiting, g.ops, g.inflight.len(), got)
		}
	}
	want(1, true)
	g.openOps, g.dirty = 10, true
	g.submit(1, 0)
	want(4, false) // 12 < 14
	want(5, true)  // 15 ≥ 15
	g.openOps, g.dirty = 5, true
	g.submit(2, 0)
	want(7, false)
	want(8, true)
	g.openOps, g.dirty = 8, true
	g.submit(3, 0)
	want(1000, false)
	if g.dirty = true; g.maySubmit() {
		t.Error("a fourth write")
	}
	g.durable(2)
	if g.ops != 8 || g.inflight.len() != 1 {
		t.Errorf("%d ops in %d writes", g.ops, g.inflight.len())
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(bootRec())
	f.Add(stateRec(3))
	f.Add(entryRec(2, 2))
	f.Add(appendIntent(nil, entryID{4, 4}))
	f.Fuzz(func(t *testing.T, rec []byte) {
		cfg := singleConfig().withDefaults()
		var w window
		r := recovery{cfg: &cfg, w: &w}
		for i := range Pos(3) { // never a panic, whatever comes again
			_ = r.replay(i+1, rec)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{frameLocal, 2, 'o', 'p'})
	f.Add(append(appendOrigin(nil, origin{1, 2, 3, 4}), 1, 'x'))
	f.Add([]byte{frameLocal, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, ops, err := cutFrame(data)
		total := 0
		for err == nil && len(ops) > 0 {
			var op []byte
			if op, ops, err = NextOp(ops); err == nil {
				total += len(op) + 1
			}
		}
		if total > len(data) {
			t.Fatalf("%d bytes of operations in %d", total, len(data))
		}
	})
}

func TestRecordRoundTrip(t *testing.T) {
	e := testEntry(7, 3, "data")
	e.Type = raftpb.EntryConfChangeV2.Enum()
	got, commit, err := decodeEntry(append(appendEntryHead(nil, e, 5), e.Data...))
	if err != nil || commit != 5 || fmt.Sprint(got) != fmt.Sprint(e) {
		t.Errorf("%v %d %v", got, commit, err)
	}
	b := baseRecord{1, 2, entryID{3, 4}, hardState{5, 6, 7}, []byte("conf")}
	if got, err := decodeBase(appendBase(nil, b)); err != nil || fmt.Sprint(got) != fmt.Sprint(b) {
		t.Errorf("%v %v", got, err)
	}
}
