package engine

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"
)

// Restore makes the staged snapshot of (index, term) the state of this member,
// durably. It is called in order with Apply, which waits; reads and watches go on.
//
//  1. The staged store is opened and its index built, as at a start of the
//     process. Nothing has changed yet; if it fails, nothing will.
//  2. The directory changes to it, by one rename.
//  3. The keyspace and everything else that is replicated is replaced, under
//     Engine.writer. Who reads in the old keyspace goes on there: the new one has
//     the same history, and more.
//  4. The publisher is told, and the old files are removed.
//
// A crash before step 2 leaves the old state, one after it the new one. While
// both are open the memory holds two indexes.
func (e *Engine) Restore(index, term uint64, confState []byte) error {
	began := time.Now()
	in := e.transfers.staged(index, term)
	if in == nil {
		return fmt.Errorf("engine: no snapshot of index %d and term %d is staged", index, term)
	}
	e.log.Info("applying snapshot", zap.Uint64("current-applied-index", e.applied.Load()), zap.Uint64("incoming-leader-snapshot-index", index),
		zap.Uint64("incoming-leader-snapshot-term", term))
	e.checkpoint.one.Lock() // none of the old store is under way, or begins
	defer e.checkpoint.one.Unlock()
	n := newEngine(e.opts)
	err := n.openStore(in.FS(), e)
	if err != nil {
		// What came is damaged here, or not a state: it must come anew.
		return errors.Join(err, e.home.Discard(in))
	}
	if err := n.isSnapshot(index, term, confState); err != nil {
		return errors.Join(err, n.keys().store.Close(), e.home.Discard(in))
	}
	if err := e.home.Install(in); err != nil {
		return errors.Join(err, n.keys().store.Close())
	}
	old := e.takeOver(n)
	old.store.Retire()
	if e.opts.Publisher != nil {
		e.opts.Publisher.Restored(e.Revision())
	}
	s := e.transfers
	s.retired.Lock()
	s.retired.keyspaces = append(s.retired.keyspaces, old)
	s.retired.Unlock()
	s.closeRetired(false)
	if err := e.home.RemoveOlder(); err != nil {
		e.log.Warn("files of the replaced store stay until the next start", zap.Error(err))
	}
	e.timed(TimedInstall, began)
	e.log.Info("applied snapshot", zap.Uint64("current-applied-index", index), zap.Int64("revision", e.Revision()), zap.Duration("took", time.Since(began)))
	return nil
}

// isSnapshot checks a state that was read against what consensus says of it.
func (e *Engine) isSnapshot(index, term uint64, confState []byte) error {
	if e.applied.Load() != index || e.term.Load() != term {
		return fmt.Errorf("%w: index %d, term %d instead of %d, %d", errTransferOther, e.applied.Load(), e.term.Load(), index, term)
	}
	have, err := confIDs(e.cluster.confState())
	if err != nil {
		return err
	}
	want, err := confIDs(confState)
	if err != nil {
		return err
	}
	if !maps.Equal(have, want) {
		return fmt.Errorf("%w: members %v instead of %v (true: learner)", errTransferOther, have, want)
	}
	return nil
}

// confIDs reads a raftpb.ConfState: the voters and, with true, the learners.
func confIDs(confState []byte) (map[uint64]bool, error) {
	ids := map[uint64]bool{}
	err := eachWireField(confState, func(num, v uint64, _ []byte) error {
		if num == 1 || num == 2 {
			ids[v] = num == 2
		}
		return nil
	})
	return ids, err
}

// takeOver replaces everything that is replicated by what n has, and returns the
// keyspace that was there before.
func (e *Engine) takeOver(n *Engine) *keyspace {
	e.writer.Lock()
	old := e.ap.k
	e.ap.k, e.ap.rev = n.ap.k, n.ap.rev
	e.ap.index, e.ap.term = n.applied.Load(), n.term.Load()
	e.ap.entries, e.ap.bytes, e.ap.logged, e.checkpoint.last = 0, n.ap.bytes, 0, e.opts.Now()
	e.ap.roll.replace(n.ap.roll.sum, n.ap.roll.known)
	e.lessor.replace(n.lessor)
	e.alarms.replace(n.alarms)
	e.cluster.replace(n.cluster)
	authBefore := e.auth.Revision()
	e.auth.Replace(n.auth.State())
	e.present.Store(n.ap.k)
	e.applied.Store(n.applied.Load())
	e.term.Store(n.term.Load())
	e.compactor.restored(n.ap.k.compactRev.Load())
	e.writer.Unlock()
	if l := e.opts.AuthListener; l != nil && e.auth.Revision() != authBefore {
		l.Revoked("") // whose tokens became void in between nobody can tell
		l.Changed()
	}
	return old
}
