package engine

import (
	"math"
	"slices"
	"sort"
	"sync"
	"time"
)

// MaxLeaseTTL is the longest TTL in seconds that a grant may ask for, as in etcd.
const MaxLeaseTTL = 9_000_000_000

// expireRetry is how long an expired lease waits before it is handed out again,
// if the revoke that was proposed for it has not been applied by then.
const expireRetry = 3 * time.Second

// forever is the deadline of a lease on a member that is not the leader.
const forever = math.MaxInt64

// lessor holds the leases. Grants, revokes and attachments are replicated state
// and change only on the apply goroutine; deadlines belong to the leader's clock
// and never influence apply.
//
// Records live in one slice and are named by their position, so that a million
// leases cost the garbage collector one map without pointers. The lock is held
// for O(log n) at most, or for one chunk when the leases are walked.
type lessor struct {
	minTTL int64 // seconds; shorter grants are raised to it
	now    func() int64

	mu struct {
		sync.RWMutex
		byID     map[int64]uint32
		slots    []lease
		free     []uint32
		attached map[string]attachment
		expiry   leaseHeap
		primary  bool
		frozen   *frozenLeases // non-nil while a checkpoint walks the leases
	}
}

// lease is one slot. A slot with id 0 is free.
type lease struct {
	id        int64
	ttl       int64 // granted seconds
	remaining int64 // seconds left as of the last replicated lease checkpoint; 0: the full TTL
	deadline  int64 // nanoseconds on the lessor's clock; forever when not primary
	granted   uint64
	keys      []string // positions are kept in attached
	heapPos   int32    // -1: not in the heap
	renewed   bool     // since this member leads
	recording bool     // an OpLeaseRecord of this member may be under way
}

type attachment struct {
	slot uint32
	pos  uint32 // in lease.keys
}

func newLessor(minTTL int64, now func() int64) *lessor {
	l := &lessor{minTTL: minTTL, now: now}
	l.mu.byID = make(map[int64]uint32)
	l.mu.attached = make(map[string]attachment)
	l.mu.expiry.l = l
	return l
}

// grant adds a lease; index is the log index of the grant. It returns the TTL
// in force.
func (l *lessor) grant(id, ttl int64, index uint64) (int64, error) {
	if id == 0 {
		return 0, ErrLeaseNotFound
	}
	if ttl > MaxLeaseTTL {
		return 0, ErrLeaseTTLTooLarge
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.mu.byID[id]; ok {
		return 0, ErrLeaseExists
	}
	ttl = max(ttl, l.minTTL)
	s := l.addLocked(lease{id: id, ttl: ttl, granted: index})
	if l.mu.primary {
		l.armLocked(s, l.now()+ttl*int64(time.Second))
	}
	return ttl, nil
}

func (l *lessor) addLocked(le lease) uint32 {
	le.heapPos, le.deadline = -1, forever
	var s uint32
	if n := len(l.mu.free); n > 0 {
		s = l.mu.free[n-1]
		l.mu.free = l.mu.free[:n-1]
		l.mu.slots[s] = le
	} else {
		s = uint32(len(l.mu.slots))
		l.mu.slots = append(l.mu.slots, le)
	}
	l.mu.byID[le.id] = s
	return s
}

// restore adds a lease read from a checkpoint.
func (l *lessor) restore(id, ttl, remaining int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.mu.byID[id]; !ok {
		l.addLocked(lease{id: id, ttl: max(ttl, l.minTTL), remaining: remaining})
	}
}

// replace takes over the leases of another lessor, which is not used any more.
// Their clocks stand still until this member leads.
func (l *lessor) replace(other *lessor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.byID, l.mu.slots, l.mu.free, l.mu.attached = other.mu.byID, other.mu.slots, other.mu.free, other.mu.attached
	l.mu.expiry = leaseHeap{l: l}
	l.mu.primary = false
}

// exists reports whether the lease is known.
func (l *lessor) exists(id int64) bool {
	l.mu.RLock()
	_, ok := l.mu.byID[id]
	l.mu.RUnlock()
	return ok
}

// attach binds key to lease id and releases it from the one it had. The caller
// has checked that the lease exists; id 0 only releases.
func (l *lessor) attach(key []byte, id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.detachLocked(key)
	s, ok := l.mu.byID[id]
	if !ok {
		return
	}
	le := &l.mu.slots[s]
	k := string(key)
	l.mu.attached[k] = attachment{slot: s, pos: uint32(len(le.keys))}
	le.keys = append(le.keys, k)
}

// detach releases key from its lease, if it has one.
func (l *lessor) detach(key []byte) {
	l.mu.Lock()
	l.detachLocked(key)
	l.mu.Unlock()
}

func (l *lessor) detachLocked(key []byte) {
	a, ok := l.mu.attached[string(key)]
	if !ok {
		return
	}
	delete(l.mu.attached, string(key))
	keys := l.mu.slots[a.slot].keys
	last := len(keys) - 1
	if int(a.pos) != last {
		keys[a.pos] = keys[last]
		l.mu.attached[keys[a.pos]] = a
	}
	keys[last] = ""
	l.mu.slots[a.slot].keys = keys[:last]
}

// keysOf returns the attached keys in order: every member deletes them in the
// same order, so that sub-revisions agree.
func (l *lessor) keysOf(id int64) ([]string, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s, ok := l.mu.byID[id]
	if !ok {
		return nil, ErrLeaseNotFound
	}
	keys := append([]string(nil), l.mu.slots[s].keys...)
	sort.Strings(keys)
	return keys, nil
}

// eachKey calls fn for the attached keys of a lease until fn fails; a lease that
// is not known has none. fn runs under the lock.
func (l *lessor) eachKey(id int64, fn func(key []byte) error) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s, ok := l.mu.byID[id]
	if !ok {
		return nil
	}
	for _, k := range l.mu.slots[s].keys {
		if err := fn([]byte(k)); err != nil {
			return err
		}
	}
	return nil
}

// remove forgets a lease whose keys have been deleted.
func (l *lessor) remove(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.mu.byID[id]
	if !ok {
		return
	}
	le := &l.mu.slots[s]
	if f := l.mu.frozen; f != nil && le.granted <= f.index {
		f.removed = append(f.removed, f.saved(le))
	}
	for _, k := range le.keys {
		delete(l.mu.attached, k)
	}
	l.mu.expiry.remove(s)
	delete(l.mu.byID, id)
	l.mu.slots[s] = lease{heapPos: -1}
	l.mu.free = append(l.mu.free, s)
}

// setRemaining applies a replicated lease checkpoint.
func (l *lessor) setRemaining(id, seconds int64) {
	l.mu.Lock()
	if s, ok := l.mu.byID[id]; ok {
		l.mu.slots[s].remaining, l.mu.slots[s].recording = seconds, false
	}
	l.mu.Unlock()
}

// promote starts the clocks: every lease gets the time it had left when that was
// last recorded, or its full TTL, plus extend, so that none expires early.
func (l *lessor) promote(extend time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.primary = true
	now := l.now()
	for s := range l.mu.slots {
		le := &l.mu.slots[s]
		if le.id == 0 {
			continue
		}
		left := le.ttl
		if le.remaining > 0 {
			left = le.remaining
		}
		le.recording = false // of an earlier term, and void
		l.armLocked(uint32(s), now+left*int64(time.Second)+int64(extend))
	}
}

// isPrimary reports whether the clocks run.
func (l *lessor) isPrimary() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.primary
}

// demote stops the clocks.
func (l *lessor) demote() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.primary = false
	for _, s := range l.mu.expiry.slots {
		le := &l.mu.slots[s]
		le.heapPos, le.deadline = -1, forever
	}
	l.mu.expiry.slots, l.mu.expiry.at = l.mu.expiry.slots[:0], l.mu.expiry.at[:0]
}

func (l *lessor) armLocked(s uint32, deadline int64) {
	l.mu.slots[s].deadline = deadline
	l.mu.expiry.put(s, deadline)
}

// renew gives the lease its full TTL again and reports it in seconds. recorded
// says that the log has, or is about to have, a remaining TTL that has become
// wrong: it must be cleared there before the renewal is acknowledged.
func (l *lessor) renew(id int64) (ttl int64, recorded bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.mu.byID[id]
	if !ok {
		return 0, false, ErrLeaseNotFound
	}
	le := &l.mu.slots[s]
	now := l.now()
	if !l.mu.primary {
		return 0, false, ErrNotPrimary
	}
	if le.deadline <= now {
		return 0, false, ErrLeaseNotFound // expired; its revoke is under way
	}
	le.renewed = true
	l.armLocked(s, now+le.ttl*int64(time.Second))
	return le.ttl, le.remaining > 0 || le.recording, nil
}

// LeaseInfo answers LeaseTimeToLive.
type LeaseInfo struct {
	ID         int64
	TTL        int64 // seconds left; -1 for an unknown lease
	GrantedTTL int64
	Keys       [][]byte
}

func (l *lessor) info(id int64, withKeys bool) LeaseInfo {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s, ok := l.mu.byID[id]
	if !ok {
		return LeaseInfo{ID: id, TTL: -1}
	}
	le := &l.mu.slots[s]
	in := LeaseInfo{ID: id, GrantedTTL: le.ttl, TTL: le.ttl}
	if le.deadline != forever {
		in.TTL = (le.deadline - l.now()) / int64(time.Second)
	}
	if withKeys {
		for _, k := range le.keys {
			in.Keys = append(in.Keys, []byte(k))
		}
		sort.Slice(in.Keys, func(i, j int) bool { return string(in.Keys[i]) < string(in.Keys[j]) })
	}
	return in
}

// list returns the lease IDs, the one that expires first in front.
func (l *lessor) list() []int64 {
	l.mu.RLock()
	type item struct{ id, deadline int64 }
	items := make([]item, 0, len(l.mu.byID))
	for id, s := range l.mu.byID {
		items = append(items, item{id, l.mu.slots[s].deadline})
	}
	l.mu.RUnlock()
	sort.Slice(items, func(i, j int) bool {
		if items[i].deadline != items[j].deadline {
			return items[i].deadline < items[j].deadline
		}
		return items[i].id < items[j].id
	})
	ids := make([]int64, len(items))
	for i := range items {
		ids[i] = items[i].id
	}
	return ids
}

// expired moves at most max leases whose deadline has passed into dst and puts
// each off by expireRetry. next is when to look again, forever if nothing runs.
func (l *lessor) expired(dst []int64, max int) (ids []int64, next int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for len(dst) < max && len(l.mu.expiry.slots) > 0 {
		s := l.mu.expiry.slots[0]
		at := l.mu.expiry.at[0]
		if at > now {
			return dst, at
		}
		dst = append(dst, l.mu.slots[s].id)
		l.mu.expiry.put(s, now+int64(expireRetry)) // deadline itself stays: the lease is expired
	}
	if len(l.mu.expiry.slots) == 0 {
		return dst, forever
	}
	return dst, l.mu.expiry.at[0]
}

// dueScan bounds how many leases due looks at in one hold of the lock.
const dueScan = 16 << 10

// due looks at dueScan leases from the slot from on and returns those, at most
// max, whose remaining time the log knows too badly: by more than a 32nd of the
// TTL, at least a second and at most longest. next is the slot to go on with, 0
// at the end. A lease that is being renewed is left alone until half its TTL
// has gone: recording it would make each renewal clear the record.
func (l *lessor) due(from uint32, max int, longest time.Duration) (cps []savedLease, next uint32) {
	cps, next = l.scan(from, max, longest)
	if len(cps) == 0 {
		return nil, next
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Of a lease that was renewed since the scan the record would be wrong; of
	// one that is renewed from here on the record will be cleared.
	return slices.DeleteFunc(cps, func(c savedLease) bool {
		s, ok := l.mu.byID[c.id]
		if !ok || l.remainingLocked(&l.mu.slots[s]) > c.remaining || l.mu.slots[s].deadline == forever {
			return true
		}
		l.mu.slots[s].recording = true
		return false
	}), next
}

// scan is due without the marks.
func (l *lessor) scan(from uint32, max int, longest time.Duration) (cps []savedLease, next uint32) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := from
	for ; int(s) < len(l.mu.slots) && int(s-from) < dueScan && len(cps) < max; s++ {
		le := &l.mu.slots[s]
		if le.id == 0 || le.deadline == forever {
			continue
		}
		known := le.ttl
		if le.remaining > 0 {
			known = le.remaining
		}
		left := l.remainingLocked(le)
		if left == 0 || le.renewed && left > le.ttl/2 {
			continue
		}
		if known-left >= min(int64(longest/time.Second), 1+le.ttl/32) {
			cps = append(cps, savedLease{id: le.id, remaining: left})
		}
	}
	if int(s) >= len(l.mu.slots) {
		s = 0
	}
	return cps, s
}

// remainingLocked is what this member knows of the time left: seconds, rounded
// up, at least 1, and 0 for "the full TTL".
func (l *lessor) remainingLocked(le *lease) int64 {
	if le.deadline == forever {
		return le.remaining
	}
	left := (le.deadline - l.now() + int64(time.Second) - 1) / int64(time.Second)
	if left >= le.ttl {
		return 0
	}
	return max(left, 1)
}
