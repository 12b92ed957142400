package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// The way of a snapshot. raft's MsgSnap names a state by index and term and is
// a small message on the control lane. The peer that gets it does not hand it
// to raft yet but opens a connection of its own and pulls:
//
//	receiver                            sender
//	MsgSnap ◄──────────────────────────  offer begins
//	manifest(index, term) ────────────►  Snapshots.Manifest holds it
//	read(blob, offset, length) ───────►  Snapshots.ReadAt        many times
//	Snapshots.Stage is done: MsgSnap goes to raft
//	end(ok) ──────────────────────────►  Release; raft.ReportSnapshot
//
// A connection that breaks is opened again and the read repeated; what Stage
// has got it keeps. The sender reports a failure when nothing was read for
// offerTimeout.

// Snapshots is where the content of snapshots lies. The methods are called
// from several goroutines.
type Snapshots interface {
	// Offer names a state of at least an index, as for raft; false if there is none
	// yet, and one is being made.
	Offer(atLeast uint64) (index, term uint64, confState []byte, ok bool)
	// Manifest describes the state (index, term) in the receiver's terms and
	// holds it until Release, which is called once for each Manifest.
	Manifest(index, term uint64) ([]byte, error)
	// ReadAt reads a part of a blob that the manifest names. At a blob's end
	// it may return less than len(p), with io.EOF.
	ReadAt(index, term uint64, blob uint32, p []byte, off int64) (int, error)
	Release(index, term uint64)
	// Stage takes over what a manifest describes, so that raft's Restore finds
	// it under (index, term). fetch reads from the sender, as ReadAt; it may be
	// called from several goroutines, and waits out broken connections for a
	// while. What an interrupted Stage left may be used by the next.
	Stage(ctx context.Context, index, term uint64, manifest []byte, fetch func(blob uint32, p []byte, off int64) (int, error)) error
}

// The calls of a pull. Methods from 128 on belong to this package.
const (
	snapManifest Method = 128 // index, term → manifest
	snapRead     Method = 129 // index, term, blob, offset, length → bytes
	snapEnd      Method = 130 // index, term, 1: taken over, 0: given up
	snapWanted   Method = 131 // the least index → index, term; for a member that raft knows nothing of
)

const (
	// snapChunk is one read of a snapshot, snapAhead how many of a pull are
	// under way: enough to fill a network of 10 ms at 3 Gbit/s. A slower one
	// has callTimeout for all of them, that is 200 KB/s.
	snapChunk = 512 << 10
	snapAhead = 8
	// offerTimeout ends an offer of which nothing is read.
	offerTimeout = 30 * time.Second
	// callTimeout is how long a read waits for its answer, fetchTimeout with
	// the time that a connection takes to come back.
	callTimeout  = 20 * time.Second
	fetchTimeout = 40 * time.Second
)

// offer is a snapshot that a peer was told of and may pull.
type offer struct {
	index, term uint64
	began, read time.Time
	held        bool // a Manifest was given out
	dead        bool // MsgSnap was dropped
}

// offer notes that the peer is told of a snapshot. raft sends the peer nothing
// else until ReportSnapshot, so each offer must end.
func (p *peer) offer(m *raftpb.Message) {
	meta := m.GetSnapshot().GetMetadata()
	p.offerState(meta.GetIndex(), meta.GetTerm())
}

// offerState is offer for a state that may also have been asked for.
func (p *peer) offerState(index, term uint64) {
	now := time.Now()
	o := &offer{index: index, term: term, began: now, read: now}
	p.mu.Lock()
	old := p.mu.offering
	p.mu.offering = o
	p.mu.Unlock()
	p.stats.snapshotsSent.inFlight.Add(1)
	if old != nil {
		// raft has given up on it by itself, as after a change of leader.
		p.stats.snapshotsSent.end(old.began, errClosed)
		p.release(old)
	}
	p.t.log.Info("sending database snapshot", hexID("remote-peer-id", p.id), zap.Uint64("snapshot-index", o.index), zap.Uint64("snapshot-term", o.term))
}

// release ends the hold of an offer that is no longer in p.mu.offering.
func (p *peer) release(o *offer) {
	if o.held {
		p.t.cfg.Snapshots.Release(o.index, o.term)
	}
}

// touch notes activity of a pull and returns whether it belongs to the offer.
func (p *peer) touch(index, term uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.mu.offering
	if o == nil || o.index != index || o.term != term {
		return false
	}
	o.read = time.Now()
	return true
}

// endOffer ends the offer, if there is one and, for o other than nil, if it is
// that one, and tells raft.
func (p *peer) endOffer(o *offer, err error) {
	p.mu.Lock()
	have := p.mu.offering
	if have == nil || o != nil && have != o {
		p.mu.Unlock()
		return
	}
	p.mu.offering = nil
	p.mu.Unlock()
	p.release(have)
	p.stats.snapshotsSent.end(have.began, err)
	if err != nil {
		p.t.log.Warn("failed to send database snapshot", hexID("remote-peer-id", p.id), zap.Uint64("snapshot-index", have.index), zap.Error(err))
	} else {
		p.t.log.Info("sent database snapshot", hexID("remote-peer-id", p.id), zap.Uint64("snapshot-index", have.index), zap.Duration("took", time.Since(have.began)))
	}
	p.t.cfg.Raft.ReportSnapshot(p.id, err == nil)
}

// expireOffer ends an offer that came to nothing.
func (p *peer) expireOffer(now time.Time) {
	p.mu.Lock()
	o := p.mu.offering
	var err error
	switch {
	case o == nil:
	case o.dead:
		err = errNoLink
	case now.Sub(o.read) > offerTimeout:
		err = fmt.Errorf("nothing was read of it for %v", offerTimeout)
	}
	p.mu.Unlock()
	if err != nil {
		p.endOffer(o, err)
	}
}

// serveSnapshot answers the calls of a pull on the sender's side.
func (t *Transport) serveSnapshot(ctx context.Context, p *peer, m Method, body []byte) ([]byte, error) {
	if t.cfg.Snapshots == nil {
		return nil, errors.New("this member has no snapshots")
	}
	c := cursor{b: body}
	if m == snapWanted {
		atLeast := c.uvarint()
		if err := c.end(); err != nil {
			return nil, err
		}
		return p.wanted(atLeast)
	}
	index, term := c.uvarint(), c.uvarint()
	if c.err == nil && !p.touch(index, term) {
		return nil, fmt.Errorf("the snapshot at index %d is not offered any more", index)
	}
	switch m {
	case snapManifest:
		if err := c.end(); err != nil {
			return nil, err
		}
		return p.manifest(index, term)
	case snapRead:
		blob, off, n := c.uvarint(), c.uvarint(), c.uvarint()
		if err := c.end(); err != nil {
			return nil, err
		}
		if blob > 1<<32-1 || off > 1<<62 || n > snapChunk {
			return nil, fmt.Errorf("%w: blob %d, %d bytes at %d", errFrame, blob, n, off)
		}
		if err := t.rate.wait(ctx, int(n)); err != nil {
			return nil, err
		}
		return readSnapshot(t.cfg.Snapshots, index, term, uint32(blob), int64(off), int(n))
	}
	ok := c.byte()
	if err := c.end(); err != nil {
		return nil, err
	}
	p.endPull(index, term, ok == 1)
	return nil, nil
}

// manifest describes the offered snapshot.
func (p *peer) manifest(index, term uint64) ([]byte, error) {
	m, err := p.t.cfg.Snapshots.Manifest(index, term)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	o := p.mu.offering
	keep := o != nil && o.index == index && o.term == term && !o.held
	if keep {
		o.held = true
	}
	p.mu.Unlock()
	if !keep { // a second manifest of one offer, or the offer has ended
		p.t.cfg.Snapshots.Release(index, term)
	}
	return m, nil
}

func (p *peer) endPull(index, term uint64, ok bool) {
	p.mu.Lock()
	o := p.mu.offering
	p.mu.Unlock()
	if o == nil || o.index != index || o.term != term {
		return
	}
	if ok {
		p.endOffer(o, nil)
	} else {
		p.endOffer(o, errors.New("the peer gave it up"))
	}
}

func readSnapshot(s Snapshots, index, term uint64, blob uint32, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	read, err := s.ReadAt(index, term, blob, b, off)
	if read > 0 {
		return b[:read], nil
	}
	return nil, err
}

// pulls are the snapshots that this member takes: one at a time, the newest.
type pulls struct {
	mu struct {
		sync.Mutex
		now *pull
	}
}

type pull struct {
	t           *Transport
	p           *peer
	m           *raftpb.Message
	index, term uint64
	began       time.Time
	cancel      context.CancelFunc
	done        chan struct{}

	mu struct {
		sync.Mutex
		conn *caller // nil: to be opened
	}
	dialing chan struct{} // holds one: who opens it
	ahead   chan struct{} // holds snapAhead: reads under way
}

// pull begins to take the snapshot of a MsgSnap. Of several the newest counts.
func (t *Transport) pull(p *peer, m *raftpb.Message) {
	meta := m.GetSnapshot().GetMetadata()
	pl := &pull{t: t, p: p, m: m, index: meta.GetIndex(), term: meta.GetTerm(), began: time.Now(), done: make(chan struct{}),
		dialing: make(chan struct{}, 1), ahead: make(chan struct{}, snapAhead)}
	t.pulls.mu.Lock()
	old := t.pulls.mu.now
	if old != nil && (old.index > pl.index || old.index == pl.index && old.term == pl.term && old.p == p) {
		t.pulls.mu.Unlock()
		return // told again; or late: its offer ends by its timeout
	}
	if !t.begin() {
		t.pulls.mu.Unlock()
		return
	}
	t.pulls.mu.now = pl
	var ctx context.Context
	ctx, pl.cancel = context.WithCancel(p.ctx)
	t.pulls.mu.Unlock()
	go func() {
		defer t.wg.Done()
		if old != nil {
			old.cancel()
			<-old.done
		}
		pl.run(ctx)
	}()
}

func (pl *pull) run(ctx context.Context) {
	defer pl.finish()
	p, log := pl.p, pl.t.log.With(hexID("remote-snapshot-sender-id", pl.p.id), zap.Uint64("incoming-snapshot-index", pl.index))
	log.Info("receiving database snapshot", hexID("local-member-id", pl.t.cfg.ID))
	p.stats.snapshotsTaken.inFlight.Add(1)
	err := pl.stage(ctx)
	p.stats.snapshotsTaken.end(pl.began, err)
	if err != nil {
		log.Warn("failed to receive the database snapshot", zap.Error(err))
	} else {
		log.Info("received and saved database snapshot", zap.Duration("download-took", time.Since(pl.began)))
		pl.t.cfg.Raft.StepAll([]*raftpb.Message{pl.m})
	}
	pl.makeRoom() // the sender may offer it again as soon as it knows
	told := byte(0)
	if err == nil {
		told = 1
	}
	// If this does not arrive, the offer ends by its timeout.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := pl.ask(end, snapEnd, append(pl.name(), told)); err != nil {
		log.Warn("cannot tell the sender of a snapshot its end", zap.Error(err))
	}
}

func (pl *pull) finish() {
	pl.cancel()
	pl.hangUp()
	pl.makeRoom()
	close(pl.done)
}

// hangUp ends the connection.
func (pl *pull) hangUp() {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if c := pl.mu.conn; c != nil {
		c.link.close(errClosed)
	}
}

// makeRoom lets the next pull begin.
func (pl *pull) makeRoom() {
	pl.t.pulls.mu.Lock()
	defer pl.t.pulls.mu.Unlock()
	if pl.t.pulls.mu.now == pl {
		pl.t.pulls.mu.now = nil
	}
}

func (pl *pull) name() []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, pl.index), pl.term)
}

func (pl *pull) stage(ctx context.Context) error {
	manifest, err := pl.retry(ctx, snapManifest, pl.name())
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return pl.t.cfg.Snapshots.Stage(ctx, pl.index, pl.term, manifest, func(blob uint32, b []byte, off int64) (int, error) {
		return pl.fetch(ctx, blob, b, off)
	})
}

// fetch reads a part of a blob, in chunks of which some are under way together.
func (pl *pull) fetch(ctx context.Context, blob uint32, b []byte, off int64) (int, error) {
	g, ctx := errgroup.WithContext(ctx)
	short := make([]int, (len(b)+snapChunk-1)/snapChunk)
	for i := range short {
		select {
		case pl.ahead <- struct{}{}:
		case <-ctx.Done():
			return 0, errors.Join(g.Wait(), ctx.Err())
		}
		g.Go(func() error {
			defer func() { <-pl.ahead }()
			at := i * snapChunk
			part := b[at:min(at+snapChunk, len(b))]
			req := binary.AppendUvarint(pl.name(), uint64(blob))
			req = binary.AppendUvarint(req, uint64(off)+uint64(at))
			got, err := pl.retry(ctx, snapRead, binary.AppendUvarint(req, uint64(len(part))))
			if err == nil && len(got) > len(part) {
				err = fmt.Errorf("%w: %d bytes for %d", errFrame, len(got), len(part))
			}
			short[i] = copy(part, got)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	n := 0
	for i, got := range short {
		n += got
		if got < min(snapChunk, len(b)-i*snapChunk) {
			break // what comes behind a gap does not count
		}
	}
	return n, nil
}

// retry asks until there is an answer, over as many connections as it takes,
// but not longer than fetchTimeout. An answer that is an error is final.
func (pl *pull) retry(ctx context.Context, m Method, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	var pause backoff
	for {
		b, err := pl.ask(ctx, m, body)
		var final *CallError
		if err == nil || errors.As(err, &final) || ctx.Err() != nil {
			return b, err
		}
		select {
		case <-time.After(pause.pause(err)):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// ask sends one request over the pull's connection, which it opens if need be.
func (pl *pull) ask(ctx context.Context, m Method, body []byte) ([]byte, error) {
	c, err := pl.connection(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.call(ctx, m, body)
}

func (pl *pull) connection(ctx context.Context) (*caller, error) {
	select {
	case pl.dialing <- struct{}{}:
		defer func() { <-pl.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	pl.mu.Lock()
	c := pl.mu.conn
	pl.mu.Unlock()
	if c != nil && c.link.reason() == nil {
		return c, nil
	}
	l, err := pl.t.connect(ctx, pl.p, transfer)
	if err != nil {
		return nil, err
	}
	if !pl.t.begin() {
		l.close(errClosed)
		return nil, errClosed
	}
	c = newCaller(l)
	go func() {
		defer pl.t.wg.Done()
		_ = c.run(pl.t.ctx)
	}()
	pl.mu.Lock()
	pl.mu.conn = c
	pl.mu.Unlock()
	return c, nil
}

// limiter bounds the bytes of snapshots that leave per second.
type limiter struct{ r *rate.Limiter }

func newLimiter(bytesPerSecond int64) *limiter {
	if bytesPerSecond <= 0 {
		return &limiter{}
	}
	// A chunk must fit, or it would never pass.
	return &limiter{rate.NewLimiter(rate.Limit(bytesPerSecond), int(max(bytesPerSecond/10, snapChunk)))}
}

func (l *limiter) wait(ctx context.Context, n int) error {
	if l.r == nil {
		return nil
	}
	return l.r.WaitN(ctx, n)
}
