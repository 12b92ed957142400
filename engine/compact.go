package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"quire/index"
	"quire/pagestore"
)

// Compaction is logical at apply: compactRev moves and readers below it are
// refused. What it makes superfluous is removed afterwards in small steps, each
// under one short hold of the writer lock, and reclaim gives the space back.

// compactor knows how far the removal has come, and puts it off while somebody
// reads everything that is stored (see pin).
type compactor struct {
	wake chan struct{}
	mu   struct {
		sync.Mutex
		target  int64         // revision to which the removal is to go
		removed int64         // revision to which it has gone
		moved   chan struct{} // closed and replaced when anything here changes

		pins   int  // readers that need every version to stay
		active bool // a removal is under way
		queued bool // one waits for the readers: new ones wait for it
	}
}

func (c *compactor) init() {
	c.wake = make(chan struct{}, 1)
	c.mu.moved = make(chan struct{})
}

// start is called under Engine.writer.
func (c *compactor) start(e *Engine, rev int64) {
	c.mu.Lock()
	c.mu.target = rev
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// changed wakes everybody who waits. The caller holds mu.
func (c *compactor) changed() {
	close(c.mu.moved)
	c.mu.moved = make(chan struct{})
}

func (c *compactor) finished(rev int64) {
	c.mu.Lock()
	c.mu.removed = max(c.mu.removed, rev)
	c.changed()
	c.mu.Unlock()
}

// restored notes that a snapshot has come in which everything up to its compact
// revision is removed.
func (c *compactor) restored(rev int64) {
	c.mu.Lock()
	c.mu.target = rev
	c.mu.Unlock()
	c.finished(rev)
}

// isDone tells whether the removal has gone to rev.
func (c *compactor) isDone(rev int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.removed >= rev
}

// pin returns when no removal is under way, and holds the next one back until
// unpin. The compact revision moves all the same, and readers below it are
// refused: what is held back is only that versions disappear.
func (c *compactor) pin(ctx context.Context) error {
	return c.await(ctx, func() bool {
		if c.mu.active || c.mu.queued {
			return false
		}
		c.mu.pins++
		return true
	})
}

func (c *compactor) unpin() {
	c.mu.Lock()
	c.mu.pins--
	c.changed()
	c.mu.Unlock()
}

// begin returns when a removal may run; end follows.
func (c *compactor) begin(ctx context.Context) error {
	err := c.await(ctx, func() bool {
		c.mu.active, c.mu.queued = c.mu.pins == 0, true
		return c.mu.active
	})
	c.mu.Lock()
	c.mu.queued = false
	c.changed()
	c.mu.Unlock()
	return err
}

func (c *compactor) end() {
	c.mu.Lock()
	c.mu.active = false
	c.changed()
	c.mu.Unlock()
}

// await tries until ok, which is called under mu.
func (c *compactor) await(ctx context.Context, ok func() bool) error {
	for {
		c.mu.Lock()
		done, moved := ok(), c.mu.moved
		c.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// AwaitCompacted returns when everything that compaction to rev made
// superfluous has been removed.
func (e *Engine) AwaitCompacted(ctx context.Context, rev int64) error {
	for {
		e.compactor.mu.Lock()
		done, moved := e.compactor.mu.removed >= rev, e.compactor.mu.moved
		e.compactor.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return errStopped
		case <-moved:
		}
	}
}

func (e *Engine) compactLoop() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.compactor.wake:
		}
		e.compactor.mu.Lock()
		rev := e.compactor.mu.target
		e.compactor.mu.Unlock()
		if !e.compactTo(rev) {
			return
		}
	}
}

// compactTo removes what revision rev has superseded; false when the engine
// stops meanwhile. A snapshot that takes the keyspace's place ends it.
func (e *Engine) compactTo(rev int64) bool {
	if e.compactor.begin(e.ctx) != nil {
		return false
	}
	defer e.compactor.end()
	e.hashBefore(rev)
	began := time.Now()
	e.writer.Lock()
	k := e.ap.k
	if e.compactor.isDone(rev) { // it came with a snapshot
		e.writer.Unlock()
		return true
	}
	k.idx.BeginWrite()
	k.idx.CompactTo(rev)
	k.idx.EndWrite()
	e.writer.Unlock()
	e.timed(TimedCompactionMark, began)
	n := 0
	freed := make([]index.VersionRef, 0, e.opts.CompactionBatch)
	for done := false; !done; {
		step := time.Now()
		e.writer.Lock()
		if !e.isPresent(k) {
			e.writer.Unlock()
			return true
		}
		k.idx.BeginWrite()
		freed, done = k.idx.CompactStep(freed[:0], e.opts.CompactionBatch)
		k.idx.EndWrite()
		err := e.bury(freed)
		e.writer.Unlock()
		e.timed(TimedCompactionStep, step)
		if err != nil {
			e.die(err)
			return false
		}
		n += len(freed)
		if e.opts.CompactionSleep > 0 && !done {
			select {
			case <-e.ctx.Done():
				return false
			case <-time.After(e.opts.CompactionSleep):
			}
		}
		if e.ctx.Err() != nil {
			return false
		}
	}
	e.tally.compacted(n)
	e.compactor.finished(rev)
	e.timed(TimedCompaction, began)
	total, inUse := k.store.Size()
	e.log.Info("finished scheduled compaction", zap.Int64("compact-revision", rev), zap.Duration("took", time.Since(began)),
		zap.Int("number-of-keys-compacted", n), zap.Int64("current-db-size-bytes", total), zap.Int64("current-db-size-in-use-bytes", inUse))
	return true
}

// hashBefore lets the present keyspace take the hash that etcd takes, unless a
// snapshot has brought this compaction already.
func (e *Engine) hashBefore(rev int64) {
	k := e.hold()
	defer k.work.RUnlock()
	e.compactor.mu.Lock()
	removed := e.compactor.mu.removed
	e.compactor.mu.Unlock()
	if removed < rev {
		k.hashBefore(rev, removed)
	}
}

// reclaimPeriod is how often sparse segments are looked for.
const reclaimPeriod = 5 * time.Second

func (e *Engine) reclaimLoop() {
	e.every(reclaimPeriod, func() {
		e.transfers.tidy()
		began := time.Now()
		n, err := e.reclaim(e.ctx, pagestore.Budget{BytesPerSecond: e.opts.ReclaimBytesPerSecond})
		if err != nil && e.ctx.Err() == nil {
			e.log.Warn("reclaim stopped", zap.Error(err))
		}
		if n > 0 {
			e.timed(TimedReclaim, began)
			e.checkpoint.kick() // the files go with the next checkpoint
		}
	})
}

// reclaim empties sparse segments of the present keyspace.
func (e *Engine) reclaim(ctx context.Context, budget pagestore.Budget) (int64, error) {
	k := e.hold()
	defer k.work.RUnlock()
	n, err := k.store.Reclaim(ctx, budget, &reclaimOwner{e, k})
	if errors.Is(err, pagestore.ErrClosed) {
		return n, nil // a snapshot has taken its place
	}
	return n, err
}

// every calls fn once a period until the engine stops.
func (e *Engine) every(period time.Duration, fn func()) {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-t.C:
			fn()
		}
	}
}

// Defragment gives back the space of everything dead. Reads and writes go on
// meanwhile.
func (e *Engine) Defragment(ctx context.Context) error {
	defer e.timed(TimedDefragment, time.Now())
	e.writer.Lock()
	e.ap.k.store.Roll()
	e.writer.Unlock()
	if err := e.Checkpoint(); err != nil {
		return err
	}
	began := time.Now()
	if _, err := e.reclaim(ctx, pagestore.Budget{Below: 0.95}); err != nil {
		return err
	}
	e.timed(TimedReclaim, began)
	return e.Checkpoint()
}

// reclaimOwner answers the page store's questions about records while it copies
// the live ones out of a sparse segment.
type reclaimOwner struct {
	e *Engine
	k *keyspace
}

// Live implements pagestore.ReclaimOwner.
func (o *reclaimOwner) Live(batch []pagestore.Candidate) {
	var kv keyValue
	for i := range batch {
		c := &batch[i]
		if isGrave(c.Hint) {
			o.e.writer.Lock()
			c.Live = o.k.needed(c.Ref)
			o.e.writer.Unlock()
			continue
		}
		if err := decodeHint(c.Hint, &kv); err != nil {
			c.Live = true // never drop what cannot be judged
			continue
		}
		c.Live = o.k.idx.Holds(relocation(&kv, c))
	}
}

// Moved implements pagestore.ReclaimOwner.
func (o *reclaimOwner) Moved(batch []pagestore.Candidate) {
	var kv keyValue
	o.e.writer.Lock()
	o.k.idx.BeginWrite()
	for i := range batch {
		c := &batch[i]
		if isGrave(c.Hint) {
			var g grave
			if g, c.Live = o.k.graves[c.Ref]; c.Live {
				delete(o.k.graves, c.Ref)
				g.before = c.Ref
				o.k.graves[c.New] = g
			}
			continue
		}
		c.Live = decodeHint(c.Hint, &kv) == nil &&
			o.k.idx.Relocate(relocation(&kv, c))
	}
	o.k.idx.EndWrite()
	o.e.writer.Unlock()
}

func relocation(kv *keyValue, c *pagestore.Candidate) index.Relocation {
	return index.Relocation{Key: kv.key, Main: kv.mod, Sub: int32(kv.sub), Old: index.Loc(c.Ref), New: index.Loc(c.New)}
}

// RunPending does the background work that is due, on the calling goroutine: a
// simulation steps an engine that was never started. It does not wait for what it
// proposes.
func (e *Engine) RunPending() error {
	expire, _ := e.dueExpiry()
	e.propose(expire)
	e.proposeRecord()
	select {
	case <-e.full:
		e.raiseNoSpace()
	default:
	}
	select {
	case <-e.compactor.wake:
		e.compactor.mu.Lock()
		rev := e.compactor.mu.target
		e.compactor.mu.Unlock()
		e.compactTo(rev)
	default:
	}
	e.transfers.tidy()
	select {
	case <-e.checkpoint.wake:
		if err := e.Checkpoint(); err != nil && !errors.Is(err, pagestore.ErrNoSpace) {
			return err
		}
	default:
	}
	_, err := e.reclaim(e.ctx, pagestore.Budget{})
	return err
}

// Scrubbing reads scrubBytes of the store every scrubPeriod and verifies them: a
// store of 17 GB is read once a day, at a fifth of a megabyte a second.
const (
	scrubPeriod = 5 * time.Second
	scrubBytes  = 1 << 20
)

// scrubLoop looks for pages that have rotted. One is reported, with its place, as
// an error; it is never served, because every read verifies again.
func (e *Engine) scrubLoop() {
	e.every(scrubPeriod, func() {
		k := e.hold()
		defer k.work.RUnlock()
		if _, err := k.store.Scrub(scrubBytes); err != nil && e.ctx.Err() == nil {
			e.log.Error("the store is damaged", zap.Error(err))
		}
	})
}
