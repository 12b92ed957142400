package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"quire/pagestore"
)

// Transfers is how checkpoints travel between members. On the way out a
// checkpoint of this member is offered to a peer, which reads from it as long as
// it likes (Manifest, ReadAt, Release). On the way in Stage fetches a peer's into a
// directory beside the store, from where Engine.Restore takes it over.
//
// Nothing here holds up applying: an offer is a list of open files, and what is
// staged does not touch the store.
type Transfers struct {
	e   *Engine
	out struct {
		sync.Mutex
		offers []*offer            // oldest first
		dead   []*pagestore.Export // to be released where closing files may take time
	}
	in struct {
		sync.Mutex
		newest uint64 // index that is being staged
		cancel context.CancelFunc
	}
	turn chan struct{} // held by the Stage that runs

	retired struct {
		sync.Mutex
		keyspaces []*keyspace // replaced; somebody may still read from them
	}
}

// offer is a checkpoint that was named to one or more peers.
type offer struct {
	index, term uint64
	export      *pagestore.Export
	told        int   // peers it was named to that have not come for it
	held        int   // Manifests without a Release
	used        int64 // Options.Now of the last use
}

// idle tells whether nobody is known to want it.
func (o *offer) idle() bool { return o.told <= 0 && o.held <= 0 }

const (
	// maxOffers bounds the checkpoints that are held for peers: as many as there
	// are followers in a cluster of five. Another one ends the oldest.
	maxOffers = 4
	// offerIdle is how long an offer is held for a peer that does not read.
	offerIdle = 30 * time.Second
	// maxStaged bounds the snapshots that wait to be taken over: the newest, and
	// one that is being taken over.
	maxStaged = 2
)

var (
	// ErrTransferGone says that a checkpoint is not offered any more; there will
	// be a newer one.
	ErrTransferGone = errors.New("engine: this snapshot is not held any more")
	// ErrTransferSuperseded ends the staging of a snapshot when a newer one comes.
	ErrTransferSuperseded = errors.New("engine: a newer snapshot is being received")
	// ErrTransferBusy refuses a snapshot while others wait to be taken over.
	ErrTransferBusy = errors.New("engine: snapshots wait to be taken over")
	// errTransferOther refuses a snapshot that is not what was announced.
	errTransferOther = errors.New("engine: snapshot is not what was announced")
)

func newTransfers(e *Engine) *Transfers { return &Transfers{e: e, turn: make(chan struct{}, 1)} }

// Transfers returns this member's, for the transport between members.
func (e *Engine) Transfers() *Transfers { return e.transfers }

// Offer names the newest durable checkpoint, if it is one of index atLeast or
// later, and holds it for a peer until that releases it or until nobody has read
// from it for offerIdle. If there is none it has one made and returns false. It
// does not wait and reads nothing.
func (s *Transfers) Offer(atLeast uint64) (index, term uint64, confState []byte, ok bool) {
	e := s.e
	x, busy := e.keys().store.TryExport()
	if busy {
		return 0, 0, nil, false // one is being made
	}
	var m meta
	if x == nil || m.decode(x.Meta()) != nil || m.applied < atLeast || m.applied == 0 {
		if x != nil {
			x.Release()
		}
		e.checkpoint.roll.Store(true)
		e.checkpoint.kick()
		return 0, 0, nil, false
	}
	s.out.Lock()
	defer s.out.Unlock()
	o := s.findLocked(m.applied, m.term)
	if o == nil {
		o = &offer{index: m.applied, term: m.term, export: x}
		s.addLocked(o)
	} else {
		s.out.dead = append(s.out.dead, x)
	}
	o.told++
	o.used = e.opts.Now()
	return o.index, o.term, m.confState, true
}

func (s *Transfers) findLocked(index, term uint64) *offer {
	for _, o := range s.out.offers {
		if o.index == index && o.term == term {
			return o
		}
	}
	return nil
}

// addLocked adds an offer. If there are too many the oldest goes.
func (s *Transfers) addLocked(o *offer) {
	if len(s.out.offers) >= maxOffers {
		s.dropLocked(0)
	}
	s.out.offers = append(s.out.offers, o)
}

func (s *Transfers) dropLocked(i int) {
	s.out.dead = append(s.out.dead, s.out.offers[i].export)
	s.out.offers = slices.Delete(s.out.offers, i, i+1)
}

// use returns an offer and notes that it is in use.
func (s *Transfers) use(index, term uint64, manifests int) (*offer, error) {
	s.out.Lock()
	defer s.out.Unlock()
	o := s.findLocked(index, term)
	if o == nil {
		return nil, fmt.Errorf("%w: index %d, term %d", ErrTransferGone, index, term)
	}
	o.used = s.e.opts.Now()
	o.held += manifests
	o.told -= manifests
	return o, nil
}

// Manifest returns what a peer has to hand to its Stage. Release has to follow.
func (s *Transfers) Manifest(index, term uint64) ([]byte, error) {
	o, err := s.use(index, term, 1)
	if err != nil {
		return nil, err
	}
	return o.export.Manifest(), nil
}

// ReadAt reads from a blob of an offered checkpoint, as io.ReaderAt does.
func (s *Transfers) ReadAt(index, term uint64, blob uint32, p []byte, off int64) (int, error) {
	o, err := s.use(index, term, 0)
	if err != nil {
		return 0, err
	}
	n, err := o.export.ReadAt(blob, p, off)
	var damaged *pagestore.CorruptError
	if errors.As(err, &damaged) {
		s.e.log.Error("the store is damaged; no snapshot of it can be sent", zap.Error(err))
	}
	_, _ = s.use(index, term, 0) // a checksum can take a while
	return n, err
}

// Release ends the hold of a Manifest.
func (s *Transfers) Release(index, term uint64) {
	s.out.Lock()
	if o := s.findLocked(index, term); o != nil {
		if o.held--; o.idle() {
			s.dropLocked(slices.Index(s.out.offers, o))
		}
	}
	s.out.Unlock()
	s.releaseDead()
}

func (s *Transfers) releaseDead() {
	s.out.Lock()
	dead := s.out.dead
	s.out.dead = nil
	s.out.Unlock()
	for _, x := range dead {
		x.Release()
	}
}

// Stage fetches the snapshot that a peer has described by manifest, verifies it
// and makes it durable, so that Restore can take it over. It goes on where an
// earlier Stage ended, of this snapshot or of another one that shares files with
// it, in this process or in one before. Only the newest is staged: a newer one
// ends it with ErrTransferSuperseded. One that is staged already, or has nothing
// new, is fine at once.
func (s *Transfers) Stage(ctx context.Context, index, term uint64, manifest []byte, fetch pagestore.FetchFunc) error {
	m, err := s.announced(index, term, manifest)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.begin(ctx, index, cancel); err != nil {
		return err
	}
	defer s.end(index)
	if index <= s.e.applied.Load() || s.staged(index, term) != nil {
		return nil
	}
	if err := s.makeRoom(); err != nil {
		return err
	}
	began := time.Now()
	in, err := s.e.home.Receive(manifest)
	if err == nil {
		err = in.Fetch(ctx, fetch, m.encode())
	}
	if err != nil {
		if s.superseded(index) {
			err = ErrTransferSuperseded
		}
		return fmt.Errorf("engine: stage snapshot of index %d: %w", index, err)
	}
	s.e.timed(TimedReceive, began)
	s.e.log.Info("received snapshot", zap.Uint64("snapshot-index", index), zap.Uint64("snapshot-term", term), zap.Duration("took", time.Since(began)))
	return nil
}

// makeRoom refuses another snapshot while as many as may wait do so, and first lets
// go of those that consensus does not ask for any more: it ignores a snapshot
// whose leader was replaced while it was fetched.
func (s *Transfers) makeRoom() error {
	n := 0
	for _, in := range s.e.home.Incoming() {
		var m meta
		switch {
		case !in.Whole() || m.decode(in.Meta()) != nil || m.applied <= s.e.applied.Load():
		case s.awaited(&m):
			n++
		default:
			if err := s.e.home.Discard(in); err != nil {
				return err
			}
		}
	}
	if n >= maxStaged {
		return ErrTransferBusy
	}
	return nil
}

func (s *Transfers) awaited(m *meta) bool {
	return s.e.opts.Awaited == nil || s.e.opts.Awaited(m.applied, m.term)
}

// announced checks that a manifest is of the snapshot announced and of this
// cluster, and returns its meta as this member will keep it.
func (s *Transfers) announced(index, term uint64, manifest []byte) (*meta, error) {
	raw, err := pagestore.PeerMeta(manifest)
	if err != nil {
		return nil, err
	}
	m := new(meta)
	if err := m.decode(raw); err != nil {
		return nil, err
	}
	if m.applied != index || m.term != term {
		return nil, fmt.Errorf("%w: index %d, term %d instead of %d, %d", errTransferOther, m.applied, m.term, index, term)
	}
	if m.clusterID != s.e.opts.ClusterID {
		return nil, fmt.Errorf("%w: of cluster %x, this is %x", errTransferOther, m.clusterID, s.e.opts.ClusterID)
	}
	m.memberID = s.e.opts.MemberID
	return m, nil
}

// begin waits until no other Stage runs, which it ends if that is not newer.
func (s *Transfers) begin(ctx context.Context, index uint64, cancel context.CancelFunc) error {
	wanted := uint64(0)
	for _, m := range s.waiting() {
		if s.awaited(&m) {
			wanted = max(wanted, m.applied)
		}
	}
	s.in.Lock()
	if index < max(s.in.newest, wanted) {
		s.in.Unlock()
		return ErrTransferSuperseded
	}
	if s.in.cancel != nil {
		s.in.cancel()
	}
	s.in.newest, s.in.cancel = index, cancel
	s.in.Unlock()
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Transfers) end(index uint64) {
	<-s.turn
	s.in.Lock()
	defer s.in.Unlock()
	if s.in.newest == index {
		s.in.newest, s.in.cancel = 0, nil
	}
}

func (s *Transfers) superseded(index uint64) bool {
	s.in.Lock()
	defer s.in.Unlock()
	return s.in.newest > index
}

// staged returns a snapshot that Restore can take over, or nil.
func (s *Transfers) staged(index, term uint64) *pagestore.Incoming {
	for _, in := range s.e.home.Incoming() {
		var m meta
		if in.Whole() && m.decode(in.Meta()) == nil && m.applied == index && m.term == term {
			return in
		}
	}
	return nil
}

// waiting returns the snapshots that Restore can still be asked for.
func (s *Transfers) waiting() (ms []meta) {
	for _, in := range s.e.home.Incoming() {
		var m meta
		if in.Whole() && m.decode(in.Meta()) == nil && m.applied > s.e.applied.Load() {
			ms = append(ms, m)
		}
	}
	return ms
}

// tidy lets go of what nobody needs any more: offers that nobody reads, replaced
// keyspaces without readers, and snapshots that the log has overtaken.
func (s *Transfers) tidy() {
	s.out.Lock()
	for i := len(s.out.offers) - 1; i >= 0; i-- {
		if s.e.opts.Now()-s.out.offers[i].used > int64(offerIdle) {
			s.dropLocked(i)
		}
	}
	s.out.Unlock()
	s.releaseDead()
	s.closeRetired(false)
	select {
	case s.turn <- struct{}{}:
	default:
		return // a Stage runs
	}
	defer func() { <-s.turn }()
	for _, in := range s.e.home.Incoming() {
		var m meta
		if err := m.decode(in.Meta()); err == nil && m.applied > s.e.applied.Load() {
			continue
		}
		if err := s.e.home.Discard(in); err != nil {
			s.e.log.Warn("cannot remove a snapshot that is not needed any more", zap.Error(err))
		}
	}
}

// closeRetired closes replaced keyspaces that nobody uses any more, or all.
func (s *Transfers) closeRetired(all bool) {
	s.retired.Lock()
	defer s.retired.Unlock()
	s.retired.keyspaces = slices.DeleteFunc(s.retired.keyspaces, func(k *keyspace) bool {
		if !all {
			if !k.store.Idle() || !k.work.TryLock() {
				return false
			}
			defer k.work.Unlock()
		}
		_ = k.store.Close() // its files are removed already
		return true
	})
}

func (s *Transfers) close() {
	s.out.Lock()
	for len(s.out.offers) > 0 {
		s.dropLocked(0)
	}
	s.out.Unlock()
	s.releaseDead()
	s.closeRetired(true)
}
