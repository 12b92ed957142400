package index

import (
	"cmp"
	"slices"
)

// LoadOptions says how a Loader works.
type LoadOptions struct {
	Workers int // goroutines that will call Add; default 1
	// Dropped is told the location of every version that is not retained:
	// compacted ones and duplicates. It is called by Finish, from one
	// goroutine. May be nil.
	Dropped func(loc Loc)
}

// Loader fills an empty Index with versions in any order.
type Loader struct {
	x    *Index
	opts LoadOptions
	runs [][]loaded
}

type loaded struct {
	key []byte
	v   Version
}

// NewLoader starts a bulk load. The Index must be empty and must not be used
// before Finish.
func (x *Index) NewLoader(opts LoadOptions) *Loader {
	opts.Workers = max(opts.Workers, 1)
	return &Loader{x: x, opts: opts, runs: make([][]loaded, opts.Workers)}
}

// Add adds one version. Each worker, a number below LoadOptions.Workers, is
// one goroutine. key is copied. A version may be added more than once.
func (l *Loader) Add(worker int, key []byte, v Version) {
	l.runs[worker] = append(l.runs[worker], loaded{append([]byte(nil), key...), v})
}

// Finish builds the directory as of compactRev: everything that CompactTo and
// CompactStep would remove is left out. Of versions with the same key, Main
// and Sub the one with the highest location is kept.
func (l *Loader) Finish(compactRev int64) error {
	all := slices.Concat(l.runs...)
	slices.SortFunc(all, func(a, b loaded) int {
		return cmp.Or(cmp.Compare(a.v.Main, b.v.Main), cmp.Compare(a.v.Sub, b.v.Sub), cmp.Compare(b.v.Loc, a.v.Loc))
	})
	x := l.x
	x.BeginWrite()
	defer x.EndWrite()
	var freed []Loc
	for i := range all {
		if i > 0 && all[i].v.Main == all[i-1].v.Main && all[i].v.Sub == all[i-1].v.Sub {
			freed = append(freed, all[i].v.Loc)
			continue
		}
		h, _, _ := x.Find(all[i].key)
		x.Put(h, all[i].key, all[i].v)
	}
	x.CompactTo(compactRev)
	for done := false; !done; {
		freed, done = x.CompactStep(freed, 1<<20)
	}
	if l.opts.Dropped != nil {
		for _, loc := range freed {
			l.opts.Dropped(loc)
		}
	}
	return nil
}
