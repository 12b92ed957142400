package index

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"testing"
)

// model is the directory as plainly as it can be said: for each key its
// versions in order. It is slow and obviously right.
type model struct {
	keys    map[string][]Version
	main    int64
	compact int64
	nextLoc Loc
	removed []Loc // by compaction
}

func newModel() *model {
	return &model{keys: map[string][]Version{}, main: 1, nextLoc: 1}
}

// next returns the version that a put or delete of key at main makes.
func (m *model) next(key string, main int64, sub int32, del, lease bool) Version {
	v := Version{Main: main, Sub: sub, Tombstone: del, HasLease: lease && !del, Loc: m.nextLoc}
	m.nextLoc++
	if del {
		return v
	}
	v.Create, v.Ver = main, 1
	if old, ok := m.newest(key); ok && !old.Tombstone {
		v.Create, v.Ver = old.Create, old.Ver+1
	}
	return v
}

func (m *model) newest(key string) (Version, bool) {
	vs := m.keys[key]
	if len(vs) == 0 {
		return Version{}, false
	}
	return vs[len(vs)-1], true
}

func (m *model) put(key string, v Version) {
	m.keys[key] = append(m.keys[key], v)
	m.main = v.Main
}

func (m *model) get(key string, rev int64) (Version, bool) {
	vs := m.keys[key]
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].Main <= rev {
			return vs[i], !vs[i].Tombstone
		}
	}
	return Version{}, false
}

func (m *model) sorted() []string {
	var keys []string
	for k := range m.keys {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// scan returns what is live in [lo, hi) as of rev; hi "" is no bound.
func (m *model) scan(lo, hi string, rev int64) []Hit {
	var hits []Hit
	for _, k := range m.sorted() {
		if k < lo || hi != "" && k >= hi {
			continue
		}
		if v, ok := m.get(k, rev); ok {
			hits = append(hits, Hit{v, []byte(k)})
		}
	}
	return hits
}

// compactTo drops, of what is before rev, what was superseded at or before rev
// and tombstones.
func (m *model) compactTo(rev int64) {
	m.compact = rev
	for k, vs := range m.keys {
		var kept []Version
		for i, v := range vs {
			superseded := i+1 < len(vs) && vs[i+1].Main <= rev
			if v.Main < rev && (superseded || v.Tombstone) {
				m.removed = append(m.removed, v.Loc)
				continue
			}
			kept = append(kept, v)
		}
		m.keys[k] = kept
		if len(kept) == 0 {
			delete(m.keys, k)
		}
	}
}

// events returns every event of revisions from to to.
func (m *model) events(from, to int64) []Event {
	var events []Event
	for _, vs := range m.keys {
		for i, v := range vs {
			if v.Main < from || v.Main > to || v.Main < m.compact {
				continue
			}
			e := Event{
				Main: v.Main, Sub: v.Sub, Loc: v.Loc, Tombstone: v.Tombstone,
				Created: v.Ver == 1, HasLease: v.HasLease,
			}
			if i > 0 && !vs[i-1].Tombstone && v.Main > m.compact {
				e.PrevLoc = vs[i-1].Loc
			}
			events = append(events, e)
		}
	}
	slices.SortFunc(events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.Main, b.Main), cmp.Compare(a.Sub, b.Sub))
	})
	return events
}

func (m *model) all(upTo int64) []VersionRef {
	var all []VersionRef
	for _, vs := range m.keys {
		for _, v := range vs {
			if v.Main <= upTo {
				all = append(all, VersionRef{v.Main, v.Loc, v.Sub, v.Tombstone})
			}
		}
	}
	slices.SortFunc(all, func(a, b VersionRef) int {
		return cmp.Or(cmp.Compare(a.Main, b.Main), cmp.Compare(a.Sub, b.Sub))
	})
	return all
}

// reader compares what x answers with what m answers.
type reader struct {
	t *testing.T
	x *Index
	m *model
}

func (r reader) get(key string, rev int64) {
	r.t.Helper()
	want, wantOK := r.m.get(key, rev)
	got, ok := r.x.Get([]byte(key), rev)
	if ok != wantOK || ok && got != want {
		r.t.Fatalf("get %q at %d: %+v %v, want %+v %v", key, rev, got, ok, want, wantOK)
	}
}

func (r reader) scan(q Query, limit int) {
	r.t.Helper()
	want := r.m.scan(string(q.Lo), string(q.Hi), q.Rev)
	if q.Descending {
		slices.Reverse(want)
	}
	var s Scanner
	s.Reset(r.x, q)
	n := 0
	for hits := s.Next(limit); len(hits) > 0; hits = s.Next(limit) {
		for _, h := range hits {
			if n >= len(want) || h.Version != want[n].Version || q.Keys && string(h.Key) != string(want[n].Key) {
				r.t.Fatalf("scan %+v: hit %d is %q %+v", q, n, h.Key, h.Version)
			}
			n++
		}
	}
	if n != len(want) {
		r.t.Fatalf("scan %+v: %d hits, want %d", q, n, len(want))
	}
}

func (r reader) count(lo, hi []byte, rev int64) {
	r.t.Helper()
	want := len(r.m.scan(string(lo), string(hi), rev))
	if got := r.x.Count(lo, hi, rev); got != int64(want) {
		r.t.Fatalf("count [%q, %q) at %d of %d: %d, want %d", lo, hi, rev, r.m.main, got, want)
	}
	// Both ways of counting, whichever was chosen.
	c := counter{x: r.x, lo: lo, hi: hi}
	if got := c.visit(rev); got != int64(want) {
		r.t.Fatalf("count by visiting [%q, %q) at %d: %d, want %d", lo, hi, rev, got, want)
	}
	c.n = int64(r.x.tree.span(lo, hi).live)
	c.pos, c.end = r.x.log.seek(rev+1), r.x.log.tail
	for c.walk() {
	}
	if c.n != int64(want) {
		r.t.Fatalf("count by the log [%q, %q) at %d: %d, want %d", lo, hi, rev, c.n, want)
	}
}

func (r reader) events(from, to int64, limit int) {
	r.t.Helper()
	want := r.m.events(from, to)
	var got []Event
	for next := from; next <= to; {
		before := len(got)
		var err error
		after := next
		got, after, err = r.x.Events(got, next, to, limit)
		if err != nil {
			r.t.Fatalf("events %d to %d: %v", next, to, err)
		}
		if after <= next || len(got) == before && after <= to {
			r.t.Fatalf("events %d to %d: %d new, next %d", next, to, len(got)-before, after)
		}
		for _, e := range got[before:] {
			if e.Main < next || e.Main >= after {
				r.t.Fatalf("events %d to %d: event of %d", next, after, e.Main)
			}
		}
		next = after
	}
	if !slices.Equal(got, want) {
		r.t.Fatalf("events %d to %d:\n%v\nwant\n%v", from, to, got, want)
	}
}

func (r reader) allVersions(upTo int64) {
	r.t.Helper()
	var got []VersionRef
	collect := func(chunk []VersionRef) { got = append(got, chunk...) }
	want := r.m.all(upTo)
	if err := r.x.AllVersions(upTo, collect); err != nil || !slices.Equal(got, want) {
		r.t.Fatalf("all versions up to %d: %v\n%v\nwant\n%v", upTo, err, got, want)
	}
	// The same in many passes.
	got = nil
	c := collector{x: r.x, compact: r.m.compact, limit: 1 + len(want)/10}
	if err := c.run(upTo, collect); err != nil || !slices.Equal(got, want) {
		r.t.Fatalf("all versions up to %d in passes: %v\n%v\nwant\n%v", upTo, err, got, want)
	}
}

// everything compares all keys, and ranges and events, at the given revision.
func (r reader) everything(rev int64) {
	r.t.Helper()
	for k := range r.m.keys {
		r.get(k, rev)
		r.get(k+"\x00", rev)
	}
	r.scan(Query{Rev: rev, Keys: true}, 1000)
	r.scan(Query{Rev: rev, Descending: true, Keys: true}, 1000)
	r.count(nil, nil, rev)
	r.allVersions(rev)
	r.events(r.m.compact, rev, 1000)
}

func check(t *testing.T, x *Index) {
	t.Helper()
	if err := x.CheckInvariants(); err != nil {
		t.Fatal(err)
	}
}

func keyf(format string, args ...any) string { return fmt.Sprintf(format, args...) }
