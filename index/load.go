package index

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
)

// A bulk load happens in two stages. Add, called by several goroutines, puts
// each version into the arena and the hash table at once: the first version
// of a key into the key's record, further ones into the key's chain, at their
// place if they come in order. Finish then puts chains in order that are not,
// applies compaction, sorts the keys and builds tree and revision log. Nothing
// is copied in between, so the peak of memory is the finished directory and
// 32 bytes per key or version.

// ErrConflict says that two versions that were loaded cannot both be true.
var ErrConflict = errors.New("index: versions contradict each other")

// LoadOptions says how a Loader works.
type LoadOptions struct {
	Workers int // goroutines that will call Add, and that Finish uses; default 1
	// Dropped is told every version that is not retained because it is
	// compacted. It is called by Finish, from its goroutine. May be nil.
	Dropped func(v VersionRef)
	// Twin is told the lower of two locations of one version, likewise.
	Twin func(loc Loc)
}

// Loader fills an empty Index with versions that come in any order.
type Loader struct {
	x       *Index
	opts    LoadOptions
	workers []loadWorker
	locks   [tableShards]sync.Mutex // one per shard of the table: the shard and its keys' chains
	mu      sync.Mutex              // the arena's chunks
}

// loadWorker is what one goroutine owns during the load.
type loadWorker struct {
	l       *Loader
	bump    [kinds]bumper
	added   int64 // versions in the arena
	newest  event // latest version seen
	dropped []VersionRef
	twins   []Loc
	_       [64]byte // workers write to theirs all the time
}

// event orders versions: by revision and by position in it.
type event struct {
	main int64
	sub  int32
}

func (e event) compare(f event) int {
	return cmp.Or(cmp.Compare(e.main, f.main), cmp.Compare(e.sub, f.sub))
}

func (a *arena) event(r ref) event { return event{a.main(r), a.sub(r)} }

// flagRework marks, during a load only, a key's record whose chain is not in
// order or reaches back beyond the compact revision.
const flagRework = flagDistOne

// NewLoader starts a bulk load. The Index must be empty, and it must not be
// used before Finish has returned.
//
// What is loaded may contain versions that compaction has removed before. But
// it must then contain, too, what superseded them or is retained of the same
// key: a put whose tombstone is missing is alive again. So the owner of the
// records may forget that of a removed tombstone only when no older record of
// that key can turn up any more.
func (x *Index) NewLoader(opts LoadOptions) *Loader {
	if x.versions != 0 || x.compact != 0 || x.log.lastMain != 0 {
		panic("index: bulk load into a directory in use")
	}
	opts.Workers = max(opts.Workers, 1)
	l := &Loader{x: x, opts: opts, workers: make([]loadWorker, opts.Workers)}
	for i := range l.workers {
		l.workers[i].l = l
	}
	return l
}

// Add adds one version; key is copied. worker is below LoadOptions.Workers,
// and no two goroutines may use the same at a time. A version may be added
// more than once, also with different locations (an interrupted reclaim leaves
// such): the highest location is kept. Add fails if v is out of range or
// contradicts another version.
func (l *Loader) Add(worker int, key []byte, v Version) error {
	if err := v.validate(key); err != nil {
		return err
	}
	w, x := &l.workers[worker], l.x
	hash := x.table.hash(key)
	if e := (event{v.Main, v.Sub}); e.compare(w.newest) > 0 {
		w.newest = e
	}
	shard := hash % tableShards
	l.locks[shard].Lock()
	defer l.locks[shard].Unlock()
	s := &x.table.shards[shard]
	r := s.find(x.a, hash, key)
	if r != 0 {
		return w.addTo(r, &v)
	}
	r = w.alloc(keyKind, keyUnits(len(key)))
	x.a.setVersion(r, &v, flagKey, 0, uint32(len(key)))
	copy(x.a.key(r), key)
	s.insert(hash, r)
	return nil
}

// alloc is the arena's alloc from the worker's own chunk.
func (w *loadWorker) alloc(kind recordKind, units uint32) ref {
	w.added++
	a := w.l.x.a
	_, size := classOf(units)
	b := &w.bump[kind]
	if units > jumboUnits || b.end-b.off < size {
		w.l.mu.Lock()
		defer w.l.mu.Unlock()
		if units > jumboUnits {
			return a.allocJumbo(units)
		}
	}
	return a.allocBump(b, kind, size)
}

// addTo adds v to the key with the record r.
func (w *loadWorker) addTo(r ref, v *Version) error {
	a := w.l.x.a
	flags := a.flags(r) & flagRework
	order := event{v.Main, v.Sub}.compare(a.event(r))
	if order == 0 {
		return w.addTwin(r, v)
	}
	older := a.older(r)
	if order > 0 {
		n := w.alloc(versionKind, w.linkUnits(flags, older))
		w.link(n, r, r, older)
		a.setVersion(r, v, flagKey|flags, n, a.keyBytes(r))
		return nil
	}
	if older != 0 {
		order := event{v.Main, v.Sub}.compare(a.event(older))
		if order == 0 {
			return w.addTwin(older, v)
		}
		if order < 0 {
			flags = flagRework
			*a.word(r, 0) |= flagRework << flagShift
		}
	}
	n := w.alloc(versionKind, w.linkUnits(flags, older))
	a.setVersion(n, v, 0, 0, 0)
	w.link(n, n, r, older)
	a.setOlder(r, n)
	return nil
}

// linkUnits is the arena's linkUnits, but chains out of order get no towers.
func (w *loadWorker) linkUnits(flags uint64, older ref) uint32 {
	if flags&flagRework != 0 {
		return headerUnits
	}
	return w.l.x.a.linkUnits(older)
}

// link is the arena's link, but chains out of order are only strung together.
func (w *loadWorker) link(n, from, key, older ref) {
	a := w.l.x.a
	if a.flags(key)&flagRework == 0 {
		a.link(n, from, key, older, 0)
		return
	}
	a.link(n, from, key, 0, 0)
	a.setOlder(n, older)
}

// addTwin handles a version that is there already, in record r.
func (w *loadWorker) addTwin(r ref, v *Version) error {
	a := w.l.x.a
	loc, err := a.twin(r, v)
	if err == nil && loc != 0 {
		w.twins = append(w.twins, loc)
	}
	return err
}

// twin makes the record r, which has the Main and Sub of v, keep the higher
// of the locations and returns the lower one, or 0 if they are the same.
func (a *arena) twin(r ref, v *Version) (lower Loc, err error) {
	have := a.version(r)
	same := *v
	same.Loc = have.Loc
	switch {
	case same != have:
		return 0, fmt.Errorf("%w: %+v and %+v of one key", ErrConflict, have, *v)
	case v.Loc == have.Loc:
		return 0, nil
	case v.Loc > have.Loc:
		a.setLoc(r, v.Loc)
		return have.Loc, nil
	}
	return v.Loc, nil
}

// Finish completes the load as of compactRev: everything that CompactTo and
// CompactStep would remove is left out. After an error the Index is useless.
func (l *Loader) Finish(compactRev int64) error {
	x := l.x
	x.BeginWrite()
	defer x.EndWrite()
	x.compact, x.done = max(compactRev, 0), true
	x.tree.shape++
	var newest event
	for i := range l.workers {
		w := &l.workers[i]
		for kind := range w.bump {
			x.a.retire(&w.bump[kind], recordKind(kind))
		}
		x.versions += w.added
		if w.newest.compare(newest) > 0 {
			newest = w.newest
		}
	}
	items, err := l.settle()
	if err != nil {
		return err
	}
	built := make(chan error, 1)
	go func() { built <- l.buildLog(newest) }()
	sortKeys(x.a, items, l.opts.Workers)
	l.buildTree(items)
	if err := <-built; err != nil {
		return err
	}
	l.report()
	return nil
}

// report tells the owner of the records what has been dropped.
func (l *Loader) report() {
	for i := range l.workers {
		if l.opts.Dropped != nil {
			for _, v := range l.workers[i].dropped {
				l.opts.Dropped(v)
			}
		}
		if l.opts.Twin != nil {
			for _, loc := range l.workers[i].twins {
				l.opts.Twin(loc)
			}
		}
		l.workers[i].dropped, l.workers[i].twins = nil, nil
	}
}
