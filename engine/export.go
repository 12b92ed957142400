package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"quire/engine/etcdfile"
	"quire/index"
	"quire/pagestore"
)

// An export writes the state as of one moment as an etcd database, while writes
// go on:
//
//	1 hold compaction's removals back           compactor.pin; nothing waits but they
//	2 note the state between two log entries    as a checkpoint does
//	3 walk the versions up to the revision of 2, in order, off the index in chunks
//	4 add the rest of the state
//
// Versions that are superseded meanwhile stay, because of 1; reclaim may move them,
// and the pin on the page store keeps the old place readable.

// exportedTTL is the TTL in seconds above which an export says how much of a
// lease was left. etcd records that for longer leases only; a restore days later
// gives shorter ones their whole TTL again, so that their owners can come back.
const exportedTTL = 300

// exportTo writes the present state into w and returns the length of the file.
func (e *Engine) exportTo(ctx context.Context, w *etcdfile.Writer) (*etcdfile.Temp, error) {
	defer e.timed(TimedSnapshot, time.Now())
	if err := e.compactor.pin(ctx); err != nil {
		return nil, err
	}
	defer e.compactor.unpin()
	k, pages := e.read()
	defer pages.Release()
	m, st, err := e.exportCut(k)
	if err != nil {
		return nil, err
	}
	x := exporter{e: e, k: k, ctx: ctx, w: w, began: time.Now()}
	if err := x.versions(m.rev); err != nil {
		return nil, err
	}
	return w.FinishTemp(st)
}

// exportCut notes the state of an export of k; errRetry if a snapshot of a peer has
// taken its place.
func (e *Engine) exportCut(k *keyspace) (meta, *etcdfile.State, error) {
	e.checkpoint.one.Lock()
	defer e.checkpoint.one.Unlock()
	e.writer.Lock()
	if err := e.ap.broken; err != nil {
		e.writer.Unlock()
		return meta{}, nil, err
	}
	if !e.isPresent(k) {
		e.writer.Unlock()
		return meta{}, nil, errRetry
	}
	m, s := e.cutLocked()
	s.leases.clock = true
	e.compactor.mu.Lock()
	removed := e.compactor.mu.removed
	e.compactor.mu.Unlock()
	e.writer.Unlock()
	s.auth.Sort()
	st := &etcdfile.State{
		ConsistentIndex: m.applied, Term: m.term, StorageVersion: e.StorageVersion(),
		ScheduledCompact: m.compactRev, FinishedCompact: removed,
		Alarms:      s.alarms,
		AuthEnabled: s.auth.Enabled, AuthRevision: s.auth.Revision, Users: s.auth.Users, Roles: s.auth.Roles,
		Members: s.members, Removed: s.removed, ClusterVersion: s.clusterVersion,
		Downgrade: etcdfile.Downgrade{Enabled: s.downgrade != "", TargetVersion: s.downgrade},
	}
	for _, mem := range s.members {
		ids := &st.ConfState.Voters
		if mem.IsLearner {
			ids = &st.ConfState.Learners
		}
		*ids = append(*ids, mem.ID)
	}
	err := s.leases.each(func(ls []savedLease) error {
		for _, l := range ls {
			x := etcdfile.Lease{ID: l.id, TTL: l.ttl}
			if l.ttl > exportedTTL {
				x.RemainingTTL = l.remaining
			}
			st.Leases = append(st.Leases, x)
		}
		return nil
	})
	// A lease may be told twice, see frozenLeases; and bbolt likes its keys in order.
	slices.SortFunc(st.Leases, func(a, b etcdfile.Lease) int { return cmpID(a.ID, b.ID) })
	st.Leases = slices.CompactFunc(st.Leases, func(a, b etcdfile.Lease) bool { return a.ID == b.ID })
	return m, st, err
}

// cmpID orders lease IDs as their keys are ordered: negative ones behind.
func cmpID(a, b int64) int {
	switch {
	case a == b:
		return 0
	case uint64(a) < uint64(b):
		return -1
	}
	return 1
}

// exporter copies versions into a database.
type exporter struct {
	e     *Engine
	k     *keyspace
	ctx   context.Context
	w     *etcdfile.Writer
	began time.Time // of the present slice of work
}

// exportSlice is how long an export works before it rests for as long: so it
// takes half of one processor, for seconds, and a write that is ready to run waits
// for a slice at most. docs/tuning/snapshot.md has the effect.
const (
	exportSlice = time.Millisecond
	// pauseEvery is after how many versions the clock is looked at.
	pauseEvery = 64
)

func (x *exporter) versions(rev int64) error {
	var err error
	walkErr := x.k.idx.AllVersions(rev, func(chunk []index.VersionRef) {
		for i := 0; i < len(chunk) && err == nil; i++ {
			if err = x.put(&chunk[i]); err == nil && i%pauseEvery == pauseEvery-1 {
				err = x.pause()
			}
		}
	})
	return errors.Join(err, walkErr)
}

// pause rests when a slice of work has ended.
func (x *exporter) pause() error {
	if worked := time.Since(x.began); worked > exportSlice {
		time.Sleep(min(worked, 10*exportSlice))
		x.began = time.Now()
	} else {
		runtime.Gosched()
	}
	return errors.Join(x.ctx.Err(), x.e.ctx.Err())
}

func (x *exporter) put(v *index.VersionRef) error {
	rec, err := x.k.store.Read(pagestore.Ref(v.Loc))
	if err != nil {
		return fmt.Errorf("engine: export: %w", err)
	}
	return x.w.Put(&etcdfile.Version{Main: v.Main, Sub: int64(v.Sub), Tombstone: v.Tombstone, KV: etcdKV(wireKV(rec), v.Tombstone)})
}

// etcdKV returns what etcd stores of a record's KeyValue: of a tombstone the key
// alone, and of a revision that was raised by a restore (its key is empty, see
// Import) nothing.
func etcdKV(kv []byte, tombstone bool) []byte {
	switch {
	case tombstone:
		return kv[:2+lenPrefixed(kv)]
	case len(keyOf(kv)) == 0:
		return nil
	}
	return kv
}
