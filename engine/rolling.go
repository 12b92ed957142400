package engine

import (
	"math/bits"
	"slices"
	"sort"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// The rolling hash runs over everything that applying the log has done: the
// records that were written, as bytes, and of each operation its kind, its
// revision and whether it failed. It is replicated state: after the same entry
// every member has the same, or has done something else with an entry since the
// beginning. Unlike HashKV it costs nothing to ask for, so that members compare
// it all the time; and since it never agrees again, the first entry after which
// two members differ can be searched for. What happens to a record after it was
// written is not in it: that the page store's checksums find.

const (
	// MarkEvery is the distance of the entries whose hash is remembered, keptMarks
	// their number: the last 131,072 entries in 400 KB. At ten thousand entries
	// per second, more than any disk writes one after the other, that is 13 s.
	MarkEvery = 8
	keptMarks = 1 << 14
)

// RollingMark is the rolling hash after one entry.
type RollingMark struct {
	Index    uint64
	Revision int64
	Sum      uint64
}

// rolling is the hash and what is remembered of it.
type rolling struct {
	sum   uint64 // guarded by Engine.writer
	known bool   // a checkpoint of before the hash does not have it; the same
	mu    struct {
		sync.Mutex
		ring []RollingMark // by Index; full: the oldest is at next
		next int
	}
}

// mix takes one number into the hash.
func (r *rolling) mix(v uint64) {
	r.sum = bits.RotateLeft64(r.sum^v*0xc2b2ae3d27d4eb4f, 31) * 0x9e3779b185ebca87
}

func (r *rolling) record(rec []byte) { r.mix(xxhash.Sum64(rec)) }

// operation takes the outcome of one operation.
func (r *rolling) operation(kind OpKind, rev int64, failed bool) {
	v := uint64(kind) << 1
	if failed {
		v |= 1
	}
	r.mix(v)
	r.mix(uint64(rev))
}

// mark remembers the hash after an entry.
func (r *rolling) mark(index uint64, rev int64) {
	if index%MarkEvery != 0 || !r.known {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := RollingMark{index, rev, r.sum}
	if len(r.mu.ring) < keptMarks {
		r.mu.ring = append(r.mu.ring, m)
		return
	}
	r.mu.ring[r.mu.next] = m
	r.mu.next = (r.mu.next + 1) % keptMarks
}

// begin starts the hash of an imported store, in which no entry of this log has
// been applied yet, from what it holds: members that were made of different
// contents differ from their first mark on.
func (r *rolling) begin(hash uint32, rev, compactRev int64) {
	r.replace(0, true)
	r.mix(uint64(hash))
	r.mix(uint64(rev))
	r.mix(uint64(compactRev))
}

// replace takes over another state's hash; what was remembered is of no use.
func (r *rolling) replace(sum uint64, known bool) {
	r.sum, r.known = sum, known
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.ring, r.mu.next = nil, 0
}

// marks returns what is remembered, oldest first.
func (r *rolling) marks() []RollingMark {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(slices.Clone(r.mu.ring[r.mu.next:]), r.mu.ring[:r.mu.next]...)
}

// at returns what is remembered of an entry.
func (r *rolling) at(index uint64) (RollingMark, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.mu.ring)
	nth := func(i int) RollingMark { return r.mu.ring[(r.mu.next+i)%n] }
	i := sort.Search(n, func(i int) bool { return nth(i).Index >= index })
	if i == n || nth(i).Index != index {
		return RollingMark{}, false
	}
	return nth(i), true
}

// ends returns the oldest and the newest mark; false if there is none.
func (r *rolling) ends() (oldest, newest RollingMark, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.mu.ring)
	if n == 0 {
		return oldest, newest, false
	}
	return r.mu.ring[r.mu.next%n], r.mu.ring[(r.mu.next+n-1)%n], true
}

// RollingEnds returns the oldest and the newest mark; false if there is none, as
// in the first moments after a start or a snapshot.
func (e *Engine) RollingEnds() (oldest, newest RollingMark, ok bool) { return e.ap.roll.ends() }

// RollingMarks returns the remembered hashes, oldest first: of every eighth of
// the newest entries.
func (e *Engine) RollingMarks() []RollingMark { return e.ap.roll.marks() }

// RollingMark returns the hash after one entry, if it is remembered.
func (e *Engine) RollingMark(index uint64) (RollingMark, bool) { return e.ap.roll.at(index) }
