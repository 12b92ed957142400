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

// Snapshots is how checkpoints travel between members. On the way out a
// checkpoint of this member is offered to a peer, which reads from it as long as
// it likes (Manifest, ReadAt, Release). On the way in Stage fetches a peer's into a
// directory beside the store, from where Engine.Restore takes it over.
//
// Nothing here holds up applying: an offer is a list of open files, and what is
// staged does not touch the store.
type Snapshots struct {
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
	refs        int   // peers it was named to that have not released it
	used        int64 // Options.Now of the last use
}

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
	// ErrSnapshotGone says that a checkpoint is not offered any more; there will
	// be a newer one.
	ErrSnapshotGone = errors.New("engine: this snapshot is not held any more")
	// ErrSnapshotSuperseded ends the staging of a snapshot when a newer one comes.
	ErrSnapshotSuperseded = errors.New("engine: a newer snapshot is being received")
	// ErrSnapshotBusy refuses a snapshot while others wait to be taken over.
	ErrSnapshotBusy = errors.New("engine: snapshots wait to be taken over")
	// errSnapshotOther refuses a snapshot that is not what was announced.
	errSnapshotOther = errors.New("engine: snapshot is not what was announced")
)

func newSnapshots(e *Engine) *Snapshots { return &Snapshots{e: e, turn: make(chan struct{}, 1)} }

// Snapshots returns this member's, for the transport between members.
func (e *Engine) Snapshots() *Snapshots { return e.snapshots }

// Snapshot names the newest durable checkpoint, if it is one of index atLeast or
// later, and holds it for a peer until Release or until nobody has read from it
// for offerIdle. If there is none it has one made and returns false. It does not
// wait and reads nothing.
func (e *Engine) Snapshot(atLeast uint64) (index, term uint64, confState []byte, ok bool) {
	s := e.snapshots
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
	o.refs++
	o.used = e.opts.Now()
	return o.index, o.term, m.confState, true
}

func (s *Snapshots) findLocked(index, term uint64) *offer {
	for _, o := range s.out.offers {
		if o.index == index && o.term == term {
			return o
		}
	}
	return nil
}

// addLocked adds an offer. If there are too many, one that nobody waits for goes,
// else the oldest.
func (s *Snapshots) addLocked(o *offer) {
	if len(s.out.offers) >= maxOffers {
		victim := max(slices.IndexFunc(s.out.offers, func(o *offer) bool { return o.refs <= 0 }), 0)
		s.dropLocked(victim)
	}
	s.out.offers = append(s.out.offers, o)
}

func (s *Snapshots) dropLocked(i int) {
	s.out.dead = append(s.out.dead, s.out.offers[i].export)
	s.out.offers = slices.Delete(s.out.offers, i, i+1)
}

// use returns the export of an offer and notes that it is in use.
func (s *Snapshots) use(index, term uint64) (*pagestore.Export, error) {
	s.out.Lock()
	defer s.out.Unlock()
	o := s.findLocked(index, term)
	if o == nil {
		return nil, fmt.Errorf("%w: index %d, term %d", ErrSnapshotGone, index, term)
	}
	o.used = s.e.opts.Now()
	return o.export, nil
}

// Manifest returns what a peer has to hand to its Stage.
func (s *Snapshots) Manifest(index, term uint64) ([]byte, error) {
	x, err := s.use(index, term)
	if err != nil {
		return nil, err
	}
	return x.Manifest(), nil
}

// ReadAt reads from a blob of an offered checkpoint, as io.ReaderAt does.
func (s *Snapshots) ReadAt(index, term uint64, blob uint32, p []byte, off int64) (int, error) {
	x, err := s.use(index, term)
	if err != nil {
		return 0, err
	}
	n, err := x.ReadAt(blob, p, off)
	var damaged *pagestore.CorruptError
	if errors.As(err, &damaged) {
		s.e.log.Error("the store is damaged; no snapshot of it can be sent", zap.Error(err))
	}
	_, _ = s.use(index, term) // a checksum can take a while
	return n, err
}

// Release ends the hold that one Snapshot call took.
func (s *Snapshots) Release(index, term uint64) error {
	s.out.Lock()
	if i := slices.IndexFunc(s.out.offers, func(o *offer) bool { return o.index == index && o.term == term }); i >= 0 {
		if s.out.offers[i].refs--; s.out.offers[i].refs <= 0 {
			s.dropLocked(i)
		}
	}
	s.out.Unlock()
	s.releaseDead()
	return nil
}

func (s *Snapshots) releaseDead() {
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
// ends it with ErrSnapshotSuperseded. One that is staged already, or has nothing
// new, is fine at once.
func (s *Snapshots) Stage(ctx context.Context, index, term uint64, manifest []byte, fetch pagestore.FetchFunc) error {
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
	if n := len(s.waiting()); n >= maxStaged {
		return ErrSnapshotBusy
	}
	began := time.Now()
	in, err := s.e.home.Receive(manifest)
	if err == nil {
		err = in.Fetch(ctx, fetch, m.encode())
	}
	if err != nil {
		if s.superseded(index) {
			err = ErrSnapshotSuperseded
		}
		return fmt.Errorf("engine: stage snapshot of index %d: %w", index, err)
	}
	s.e.timed(TimedReceive, began)
	s.e.log.Info("received snapshot", zap.Uint64("snapshot-index", index), zap.Uint64("snapshot-term", term), zap.Duration("took", time.Since(began)))
	return nil
}

// announced checks that a manifest is of the snapshot announced and of this
// cluster, and returns its meta as this member will keep it.
func (s *Snapshots) announced(index, term uint64, manifest []byte) (*meta, error) {
	raw, err := pagestore.PeerMeta(manifest)
	if err != nil {
		return nil, err
	}
	m := new(meta)
	if err := m.decode(raw); err != nil {
		return nil, err
	}
	if m.applied != index || m.term != term {
		return nil, fmt.Errorf("%w: index %d, term %d instead of %d, %d", errSnapshotOther, m.applied, m.term, index, term)
	}
	if m.clusterID != s.e.opts.ClusterID {
		return nil, fmt.Errorf("%w: of cluster %x, this is %x", errSnapshotOther, m.clusterID, s.e.opts.ClusterID)
	}
	m.memberID = s.e.opts.MemberID
	return m, nil
}

// begin waits until no other Stage runs, which it ends if that is not newer.
func (s *Snapshots) begin(ctx context.Context, index uint64, cancel context.CancelFunc) error {
	s.in.Lock()
	newest := s.in.newest
	for _, m := range s.waiting() {
		newest = max(newest, m.applied)
	}
	if index < newest {
		s.in.Unlock()
		return ErrSnapshotSuperseded
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

func (s *Snapshots) end(index uint64) {
	<-s.turn
	s.in.Lock()
	defer s.in.Unlock()
	if s.in.newest == index {
		s.in.newest, s.in.cancel = 0, nil
	}
}

func (s *Snapshots) superseded(index uint64) bool {
	s.in.Lock()
	defer s.in.Unlock()
	return s.in.newest > index
}

// staged returns a snapshot that Restore can take over, or nil.
func (s *Snapshots) staged(index, term uint64) *pagestore.Incoming {
	for _, in := range s.e.home.Incoming() {
		var m meta
		if in.Whole() && m.decode(in.Meta()) == nil && m.applied == index && m.term == term {
			return in
		}
	}
	return nil
}

// waiting returns the snapshots that Restore can still be asked for.
func (s *Snapshots) waiting() (ms []meta) {
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
func (s *Snapshots) tidy() {
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
func (s *Snapshots) closeRetired(all bool) {
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

func (s *Snapshots) close() {
	s.out.Lock()
	for len(s.out.offers) > 0 {
		s.dropLocked(0)
	}
	s.out.Unlock()
	s.releaseDead()
	s.closeRetired(true)
}
