package corruption

import (
	"context"
	"errors"
	"slices"
	"testing"

	"quire/engine"
)

const divergence = "a member is divergent: it has made something else of the log than the majority"

// TestWhoIsRight: rounds rounds of one leader end with these alarms, and no others.
func TestWhoIsRight(t *testing.T) {
	type members = []*fakeMember
	for _, tc := range []struct {
		name   string
		n      int
		set    func(m members)
		rounds int
		want   []uint64
	}{
		{"equal", 3, func(members) {}, 30, nil},
		{"one differs", 3, func(m members) { m[2].differs = 800 }, 1, []uint64{3}},
		{"the leader differs", 3, func(m members) { m[0].differs = 800 }, 1, []uint64{1}},
		{"two of five", 5, func(m members) { m[1].differs, m[4].differs = 800, 7000 }, 1, []uint64{2, 5}},
		{"two of five in the same way", 5, func(m members) { m[1].differs, m[4].differs, m[4].as = 800, 800, 2 }, 1, []uint64{2, 5}},
		{"the leader and another of five", 5, func(m members) { m[0].differs, m[4].differs = 800, 7000 }, 1, []uint64{1, 5}},
		{"all differ", 3, func(m members) { m[1].differs, m[2].differs = 800, 1600 }, 1, []uint64{0}},
		{"one of two", 2, func(m members) { m[1].differs = 800 }, 1, []uint64{0}},
		{"two and two", 4, func(m members) { m[2].differs, m[3].differs, m[3].as = 800, 800, 3 }, 1, []uint64{0}},
		{"lags and is equal", 3, func(m members) { m[1].newest, m[2].newest = 7992, 4000 }, 30, nil},
		{"lags and differs", 3, func(m members) { m[2].newest, m[2].differs = 5000, 800 }, 1, []uint64{3}},
		{"lags far behind all marks", 3, func(m members) { m[0].oldest, m[1].oldest, m[2].newest = 4000, 4000, 3000 }, 30, nil},
		{"is ahead", 3, func(m members) { m[1].newest = 9000 }, 30, nil},
		{"is ahead and differs", 3, func(m members) { m[1].newest, m[1].differs = 9000, 4000 }, 1, []uint64{2}},
		{"has started a moment ago", 3, func(m members) { m[1].oldest, m[1].newest = 0, 0 }, 30, nil},
		{"has started and is ahead of the leader", 3, func(m members) { m[1].oldest, m[1].newest = 8008, 8008 }, 30, nil},
		{"has started and differs", 3, func(m members) { m[1].oldest, m[1].differs = 8000, 8 }, 1, []uint64{2}},
		{"the leader has no marks", 3, func(m members) { m[0].oldest, m[0].newest = 0, 0 }, 30, nil},
		{"does not answer", 3, func(m members) { m[1].down, m[2].down = true, true }, 30, nil},
		{"one is down, one differs: waits for the third", 3, func(m members) { m[1].down, m[2].differs = true, 800 }, patience - 1, nil},
		{"the third does not come", 3, func(m members) { m[1].down, m[2].differs = true, 800 }, patience, []uint64{0}},
		{"two of five are down", 5, func(m members) { m[1].down, m[2].down, m[4].differs = true, true, 800 }, patience, []uint64{0}},
		{"one of five is down", 5, func(m members) { m[1].down, m[4].differs = true, 800 }, 1, []uint64{5}},
		{"answers garbage", 3, func(m members) { m[1].answer = func([]byte) ([]byte, error) { return []byte("garbage?"), nil } }, 30, nil},
		{"answers without end", 3, func(m members) { m[1].answer = func([]byte) ([]byte, error) { return make([]byte, 1<<20), nil } }, 30, nil},
		{"answers what nobody asked", 3, func(m members) {
			m[1].answer = func([]byte) ([]byte, error) {
				return appendMarks(nil, []engine.RollingMark{{Index: 3, Sum: 1}, {Index: 1 << 60, Sum: 2}}), nil
			}
		}, 30, nil},
		{"answers with an error", 3, func(m members) {
			m[1].answer = func([]byte) ([]byte, error) { return nil, errors.New("method 5 is not known here") }
		}, 30, nil},
		{"entries without marks", 3, func(m members) { m[1].missing = map[uint64]bool{8000: true, 7992: true} }, 30, nil},
		{"alone", 1, func(members) {}, 30, nil},
	} {
		c := newFake(tc.n)
		tc.set(c.members)
		check := NewContinuous(c.config())
		for range tc.rounds {
			check.Round(t.Context())
		}
		if got := c.named(); !slices.Equal(got, tc.want) {
			t.Errorf("%s: alarms of %v, want %v", tc.name, got, tc.want)
		}
		if c.logs.FilterLevelExact(2).Len() > len(tc.want) || len(tc.want) > 0 && c.logs.FilterLevelExact(2).Len() == 0 {
			t.Errorf("%s: errors in the log: %v", tc.name, c.logs.FilterLevelExact(2).All())
		}
	}
}

// TestOnlyTheUnverifiedAreAsked: at rest nobody is.
func TestOnlyTheUnverifiedAreAsked(t *testing.T) {
	c := newFake(3)
	check := NewContinuous(c.config())
	c.members[2].newest = 7000
	for range 5 {
		check.Round(t.Context())
	}
	if a, b := c.members[1].asked, c.members[2].asked; a != 1 || b != 5 {
		t.Errorf("asked %d and %d times", a, b)
	}
	if v := check.Verified(); v[2] != 8000 || v[3] < 6000 || v[3] > 7000 {
		t.Errorf("verified %v", v)
	}
	c.members[2].newest = 8000
	check.Round(t.Context())
	asked := c.members[2].asked
	check.Round(t.Context())
	if c.members[2].asked != asked || check.Rounds() != 6 {
		t.Errorf("asked %d times in %d rounds", c.members[2].asked, check.Rounds())
	}
	for _, m := range c.members {
		m.newest = 8008
	}
	check.Round(t.Context())
	if c.members[1].asked != 2 {
		t.Errorf("asked %d times", c.members[1].asked)
	}
	c.session = 1 // all are started anew
	check.Round(t.Context())
	check.Round(t.Context())
	if c.members[1].asked != 3 {
		t.Errorf("asked %d times", c.members[1].asked)
	}
	c.leads = false
	check.Round(t.Context())
	if len(check.Verified()) > 0 {
		t.Error("a follower knows of verified members")
	}
}

// TestAlarmComesBack: disarming mends nothing, until the member is replaced.
func TestAlarmComesBack(t *testing.T) {
	c := newFake(3)
	check := NewContinuous(c.config())
	c.members[2].differs = 800
	for range 3 {
		for range 3 {
			check.Round(t.Context())
		}
		if got := c.named(); !slices.Equal(got, []uint64{3}) {
			t.Fatalf("alarms of %v", got)
		}
		c.alarms = nil
	}
	if n := c.logs.FilterMessage(divergence).Len(); n != 3 {
		t.Errorf("told %d times", n)
	}
	c.members[2] = &fakeMember{id: 4, oldest: 8000, newest: 8000}
	check.Round(t.Context())
	if len(c.alarms) > 0 || check.Verified()[4] != 8000 {
		t.Errorf("alarms %v, verified %v", c.alarms, check.Verified())
	}
}

// TestAlarmThatCannotBeRaised is raised later, and told once.
func TestAlarmThatCannotBeRaised(t *testing.T) {
	c := newFake(3)
	check := NewContinuous(c.config())
	c.members[2].differs, c.refuse = 800, errors.New("no leader")
	for range 5 {
		check.Round(t.Context())
	}
	c.refuse = nil
	check.Round(t.Context())
	if got := c.named(); !slices.Equal(got, []uint64{3}) || c.logs.FilterMessage(divergence).Len() != 1 {
		t.Errorf("alarms of %v, log %v", got, c.logs.All())
	}
}

// TestLateMajority: the member that was missing comes back, and the alarm that
// named nobody is joined by one that does.
func TestLateMajority(t *testing.T) {
	c := newFake(3)
	check := NewContinuous(c.config())
	c.members[1].down, c.members[2].differs = true, 800
	for range patience + 5 {
		check.Round(t.Context())
	}
	c.members[1].down = false
	check.Round(t.Context())
	if got := c.named(); !slices.Equal(got, []uint64{0, 3}) {
		t.Errorf("alarms of %v", got)
	}
}

// TestFirstDifference: wherever it is, it is found exactly, with few questions.
func TestFirstDifference(t *testing.T) {
	for _, from := range []uint64{16, 24, 800, 804, 4000, 7992, 8000, 120_000, 130_992} {
		c := newFake(3)
		for _, m := range c.members {
			m.newest = max(8000, (from+1000)&^7)
		}
		c.members[1].differs = from
		NewContinuous(c.config()).Round(t.Context())
		got := c.logged(t, divergence)
		first := (from + 7) &^ 7
		last := first - 8
		if got["last-equal-entry"] != last || got["first-different-entry"] != first || got["member-id"] != "2" ||
			got["first-different-revision"] != int64(last)*10+1 || got["last-different-revision"] != int64(first)*10+1 {
			t.Errorf("from entry %d on: %v", from, got)
		}
		if c.members[1].asked > 8 {
			t.Errorf("from entry %d on: %d questions", from, c.members[1].asked)
		}
	}
}

// TestFirstDifferenceBeforeWhatIsRemembered: what the leader has seen to be equal
// counts, although the other does not remember it any more.
func TestFirstDifferenceBeforeWhatIsRemembered(t *testing.T) {
	c := newFake(3)
	check := NewContinuous(c.config())
	check.Round(t.Context())
	for _, m := range c.members {
		m.newest = 9000
	}
	c.members[2].oldest, c.members[2].differs = 8800, 8100 // it was restarted
	check.Round(t.Context())
	if got := c.logged(t, divergence); got["last-equal-entry"] != uint64(8000) || got["first-different-entry"] != uint64(8800) {
		t.Errorf("%v", got)
	}

	c = newFake(3)
	c.members[2].oldest, c.members[2].differs = 7000, 10
	NewContinuous(c.config()).Round(t.Context())
	if got := c.logged(t, divergence); got["last-equal-entry"] != uint64(0) || got["first-different-entry"] != uint64(7000) || got["may-have-begun-before-what-is-remembered"] != true {
		t.Errorf("%v", got)
	}
}

// TestSearchIsBounded: members whose answers contradict each other end it, too.
func TestSearchIsBounded(t *testing.T) {
	c := newFake(3)
	liar := c.members[2]
	n := uint64(0)
	liar.answer = func(body []byte) ([]byte, error) {
		asked, err := parseIndices(body)
		var marks []engine.RollingMark
		for _, i := range asked {
			n++
			marks = append(marks, engine.RollingMark{Index: i, Sum: n})
		}
		return appendMarks(nil, marks), err
	}
	NewContinuous(c.config()).Round(t.Context())
	if liar.asked > 2+1+maxProbes {
		t.Errorf("%d questions", liar.asked)
	}
	if got := c.named(); !slices.Equal(got, []uint64{3}) {
		t.Errorf("alarms of %v", got)
	}
}

// TestStir: entries are made for a member that has started again while nobody
// writes, once, and it is compared then.
func TestStir(t *testing.T) {
	c := newFake(3)
	cfg := c.config()
	at, made := uint64(8003), 0
	cfg.Entry = func(context.Context) error {
		at++
		made++
		for _, m := range c.members {
			if at%8 == 0 {
				if m.newest = at; m.oldest == 0 {
					m.oldest = at
				}
			}
		}
		return nil
	}
	check := NewContinuous(cfg)
	c.members[1].oldest, c.members[1].newest, c.members[1].differs = 0, 0, 4000
	for range quietRounds - 1 {
		check.Round(t.Context())
	}
	if made > 0 {
		t.Errorf("%d entries at once", made)
	}
	for range 10 {
		check.Round(t.Context())
	}
	if got := c.named(); made != 5 || !slices.Equal(got, []uint64{2}) {
		t.Errorf("%d entries, alarms of %v", made, got)
	}

	c = newFake(3) // one that never has marks, one that does not answer
	cfg = c.config()
	made = 0
	cfg.Entry = func(context.Context) error { made++; return nil }
	check = NewContinuous(cfg)
	c.members[1].oldest, c.members[1].newest, c.members[2].down = 0, 0, true
	for range 50 {
		check.Round(t.Context())
	}
	if made != engine.MarkEvery {
		t.Errorf("%d entries", made)
	}
}

func TestBetween(t *testing.T) {
	for lo := uint64(0); lo < 2000; lo += 7 {
		for hi := lo; hi < lo+3000; hi += 13 {
			got := between(lo, hi)
			if len(got) > maxIndices || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Fatalf("between %d and %d: %v", lo, hi, got)
			}
			all := 0
			for i := (lo/8 + 1) * 8; i < hi; i += 8 {
				all++
			}
			if len(got) != min(all, maxIndices) {
				t.Fatalf("between %d and %d: %d of %d", lo, hi, len(got), all)
			}
			for _, i := range got {
				if i <= lo || i >= hi || i%8 != 0 {
					t.Fatalf("between %d and %d: %v", lo, hi, got)
				}
			}
		}
	}
}
