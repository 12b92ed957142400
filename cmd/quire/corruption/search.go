package corruption

import (
	"context"
	"maps"
	"slices"

	"quire/engine"
)

// maxProbes bounds a search: each narrows the entries in question to a 65th, and
// three are enough for all marks that are kept.
const maxProbes = 6

// marksFrom returns one member's marks of entries, as far as it has them; of its
// oldest and its newest when none is named.
type marksFrom func(ctx context.Context, indices []uint64) (map[uint64]engine.RollingMark, error)

// difference is the first entry after which two members are known to differ, and
// the last after which they were equal.
type difference struct {
	equal        engine.RollingMark // zero: not known
	right, wrong engine.RollingMark // of the same entry
}

// search finds the first difference between two members that differ after entry
// hi. equal is a mark that they are known to have had in common, or zero. An error
// ends it with what is known so far.
func search(ctx context.Context, right, wrong marksFrom, equal engine.RollingMark, hi uint64) (difference, error) {
	d := difference{equal: equal}
	lo := equal.Index
	both := func(indices []uint64) (a, b map[uint64]engine.RollingMark, err error) {
		if a, err = right(ctx, indices); err == nil {
			b, err = wrong(ctx, indices)
		}
		return a, b, err
	}
	a, b, err := both(nil)
	if err != nil {
		return d, err
	}
	for _, ends := range []map[uint64]engine.RollingMark{a, b} {
		if len(ends) > 0 { // what is older is not remembered
			lo = max(lo, max(slices.Min(slices.Collect(maps.Keys(ends))), engine.MarkEvery)-engine.MarkEvery)
		}
	}
	probe := []uint64{hi}
	for range maxProbes {
		if a, b, err = both(probe); err != nil {
			return d, err
		}
		met := false
		for _, i := range probe {
			x, okX := a[i]
			y, okY := b[i]
			if !okX || !okY {
				continue
			}
			met = true
			if x != y {
				d.right, d.wrong, hi = x, y, i
				break
			}
			d.equal, lo = x, i
		}
		if probe = between(lo, hi); !met || len(probe) == 0 {
			break
		}
	}
	return d, nil
}

// between returns entries between lo and hi, excluding both, that have marks and
// cut what lies between into at most 65 parts.
func between(lo, hi uint64) (indices []uint64) {
	first := lo/engine.MarkEvery + 1
	if hi <= first*engine.MarkEvery {
		return nil
	}
	n := (hi-1)/engine.MarkEvery - first + 1 // of those in question
	if n <= maxIndices {
		for i := range n {
			indices = append(indices, (first+i)*engine.MarkEvery)
		}
		return indices
	}
	for i := range uint64(maxIndices) {
		indices = append(indices, (first+(i+1)*n/(maxIndices+1))*engine.MarkEvery)
	}
	return indices
}
