package engine

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/pagestore"
)

// A checkpoint makes the state at one applied index durable, so that the log
// before it can go. Marking it is cheap and happens between two log entries; the
// writing happens on another goroutine while apply goes on.

// checkpointIdle is how long changes may stay without a checkpoint.
const checkpointIdle = 60 * time.Second

// checkpointer owns the checkpoint goroutine's wake-ups.
type checkpointer struct {
	wake chan struct{}
	roll atomic.Bool // the next one is for a peer: it ends the open segments
	one  sync.Mutex  // one checkpoint at a time
	last int64       // Options.Now of the last one; guarded by Engine.writer
}

func (c *checkpointer) init(e *Engine) {
	c.wake = make(chan struct{}, 1)
	c.last = e.opts.Now()
}

func (c *checkpointer) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// checkpointDue tells whether enough has been applied since the last checkpoint.
func (a *applier) checkpointDue() bool {
	o := &a.e.opts
	if max(a.bytes, a.logged) >= o.CheckpointBytes {
		return true
	}
	return a.entries >= o.CheckpointEntries && o.Now()-a.e.checkpoint.last >= int64(o.CheckpointMinInterval)
}

func (e *Engine) checkpointLoop() {
	t := time.NewTicker(checkpointIdle)
	defer t.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.checkpoint.wake:
		case <-t.C:
			e.writer.Lock()
			changed := e.ap.entries > 0
			e.writer.Unlock()
			if !changed {
				continue
			}
		}
		err := e.Checkpoint()
		switch {
		case errors.Is(err, pagestore.ErrNoSpace):
			e.log.Warn("no space for a checkpoint; the log is kept", zap.Error(err))
		case err != nil:
			e.die(err)
			return
		}
	}
}

// Checkpoint makes everything applied so far durable in the page store and then
// tells Options.OnCheckpoint. pagestore.ErrNoSpace leaves the last checkpoint in
// force; any other error is final.
func (e *Engine) Checkpoint() error { return e.makeCheckpoint(false) }

// makeCheckpoint is Checkpoint. It is the last one if nothing will be applied and
// no lease renewed by this process any more.
func (e *Engine) makeCheckpoint(last bool) error {
	e.checkpoint.one.Lock()
	defer e.checkpoint.one.Unlock()
	began := time.Now()
	e.writer.Lock()
	if err := e.ap.broken; err != nil {
		e.writer.Unlock()
		return err
	}
	k := e.ap.k
	if e.checkpoint.roll.Swap(false) {
		k.store.Roll()
	}
	m, st := e.cutLocked()
	st.leases.clock = last && len(st.members) == 1
	cut, err := k.store.Cut(m.encode(), func(w io.Writer) error { return st.writeTo(w) })
	e.ap.entries, e.ap.bytes, e.ap.logged, e.checkpoint.last = 0, 0, 0, e.opts.Now()
	e.writer.Unlock()
	if err == nil {
		err = cut.Commit()
	}
	st.leases.thaw()
	if err != nil {
		return err
	}
	e.timed(TimedCheckpoint, began)
	e.log.Info("saved snapshot", zap.Uint64("snapshot-index", m.applied))
	if e.opts.OnCheckpoint != nil {
		e.opts.OnCheckpoint(m.applied)
	}
	return nil
}

// cutLocked notes the state between two log entries. The caller holds
// checkpointer.one, for there is one walk over the leases at a time, and writer;
// it must thaw the leases.
func (e *Engine) cutLocked() (meta, stateSnapshot) {
	m := meta{applied: e.applied.Load(), term: e.term.Load(), rev: e.ap.rev, compactRev: e.ap.k.compactRev.Load(),
		clusterID: e.opts.ClusterID, memberID: e.opts.MemberID, confState: e.cluster.confState(),
		rolling: e.ap.roll.sum, hasRolling: e.ap.roll.known}
	return m, stateSnapshot{leases: e.lessor.freeze(m.applied), alarms: e.alarms.list(pb.AlarmType_NONE),
		members: e.cluster.list(), removed: e.cluster.removedIDs(), clusterVersion: e.cluster.clusterVersion(),
		downgrade: e.cluster.downgradeTarget(), graves: e.ap.k.gravePlaces(), auth: e.auth.State()}
}

// onNoSpace is told by the page store that its disk is full (err) or has room
// again (nil). The alarm is replicated state, so it is raised through the log.
func (e *Engine) onNoSpace(err error) {
	if err == nil {
		e.log.Info("the page store has room again; the NOSPACE alarm stays until it is disarmed")
		return
	}
	e.log.Warn("the page store's disk is full", zap.Error(err))
	if e.opts.Propose == nil {
		return
	}
	select {
	case e.full <- struct{}{}:
	default: // it is being raised
	}
}

// alarmLoop raises the alarm: the page store, which tells of the full disk, must
// not wait for consensus.
func (e *Engine) alarmLoop() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.full:
			e.raiseNoSpace()
		}
	}
}

func (e *Engine) raiseNoSpace() {
	req := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: e.opts.MemberID, Alarm: pb.AlarmType_NOSPACE}
	body, err := req.MarshalVT()
	if err == nil {
		err = e.opts.Propose(AppendOp(nil, OpAlarm, body), &ownOp{done: make(chan error, 1)})
	}
	if err != nil {
		e.log.Warn("cannot raise the NOSPACE alarm", zap.Error(err))
	}
}
