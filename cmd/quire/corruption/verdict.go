package corruption

import (
	"maps"
	"slices"

	"quire/engine"
)

// ballot is what members have of one entry.
type ballot struct {
	index uint64
	marks map[uint64]engine.RollingMark // by member
}

// divergent is a member that has another mark than the majority, and a member of
// that.
type divergent struct {
	member, right uint64
	index         uint64 // of the entry that decided
}

// verdict is what follows from the ballots.
type verdict struct {
	wrong []divergent // by member
	// open: members differ of which nobody knows who is right. complete: all
	// members have answered, so that waiting helps nothing.
	open, complete bool
}

// decide tells who is right: the mark that more than half of all members have of
// an entry. Since hashes that have come to differ never agree again, no two
// entries can give different majorities; so all ballots count, and members that
// lag are judged by those that they have. self is preferred as the member to
// compare others with.
func decide(members int, self uint64, ballots []ballot) (v verdict) {
	wrong := map[uint64]divergent{}
	for _, b := range ballots {
		right, ok := b.majority(members)
		if !ok {
			continue
		}
		with := uint64(0)
		for _, id := range slices.Sorted(maps.Keys(b.marks)) {
			if b.marks[id] == right && (with == 0 || id == self) {
				with = id
			}
		}
		for id, m := range b.marks {
			if _, known := wrong[id]; m != right && !known {
				wrong[id] = divergent{id, with, b.index}
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wrong)) {
		v.wrong = append(v.wrong, wrong[id])
	}
	for _, b := range ballots {
		left := map[engine.RollingMark]bool{}
		for id, m := range b.marks {
			if _, known := wrong[id]; !known {
				left[m] = true
			}
		}
		if len(left) > 1 {
			v.open = true
			v.complete = v.complete || len(b.marks) == members
		}
	}
	return v
}

// majority returns the mark that more than half of so many members have.
func (b *ballot) majority(members int) (engine.RollingMark, bool) {
	count := map[engine.RollingMark]int{}
	for _, m := range b.marks {
		if count[m]++; count[m] > members/2 {
			return m, true
		}
	}
	return engine.RollingMark{}, false
}
