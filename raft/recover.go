package raft

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// recovery rebuilds the window and the hard state from the log's records, then
// checks them against the state machine's durable position.
type recovery struct {
	cfg *Config
	w   *window
	hs  hardState

	started  bool // w stands somewhere
	entries  bool // one was seen
	floating bool // w.trim's term is not known: no base record yet
	sawBase  bool
	bootConf []byte // membership of the bootstrap, while the log starts there
	intent   entryID
	// needBase: the log was moved to the store's snapshot, which must be
	// written down before anything is appended.
	needBase bool
	newLog   bool
	// doubtful: the end of the log was cut although it may have been acknowledged,
	// and no record behind that place says that it was made good. sound is the
	// position of the newest such record.
	doubtful bool
	sound    Pos
}

func (r *recovery) replay(pos Pos, rec []byte) error {
	if err := r.record(pos, rec); err != nil {
		if errors.Is(err, ErrWrongMember) {
			return err
		}
		return &CorruptError{Pos: pos, What: err.Error()}
	}
	return nil
}

func (r *recovery) record(pos Pos, rec []byte) error {
	if len(rec) == 0 {
		return fmt.Errorf("empty record")
	}
	switch rec[0] {
	case recEntry:
		e, commit, err := decodeEntry(rec)
		if err != nil {
			return err
		}
		r.hs.commit = max(r.hs.commit, commit)
		return r.entry(e, pos, len(rec))
	case recState:
		hs, err := decodeState(rec)
		if err != nil {
			return err
		}
		return r.state(hs)
	case recBase:
		b, err := decodeBase(rec)
		if err != nil {
			return err
		}
		return r.base(b)
	case recIntent:
		id, err := decodeIntent(rec)
		r.intent = id
		return err
	case recSound:
		r.sound = pos
		return nil
	}
	return fmt.Errorf("record kind %d", rec[0])
}

func (r *recovery) state(hs hardState) error {
	if hs.term < r.hs.term {
		return fmt.Errorf("term goes back from %d to %d", r.hs.term, hs.term)
	}
	hs.commit = max(hs.commit, r.hs.commit)
	r.hs = hs
	return nil
}

// entry adds one entry. A later record with a lower index replaces the suffix.
// Segments before a trim point may be gone or not, so that the first entry
// seen may be any; the base record that permitted the trim comes later. So may
// an older base record that is the first of all: its entries are gone.
func (r *recovery) entry(e *raftpb.Entry, pos Pos, recBytes int) error {
	i := e.GetIndex()
	first := !r.entries
	r.entries = true
	switch {
	case !r.started, r.floating && i <= r.w.trim.index, first && i > r.w.lastIndex()+1:
		r.w.reset(entryID{index: i - 1})
		r.started, r.floating = true, true
	case i <= r.w.trim.index:
		return fmt.Errorf("entry %d replaces an entry before the log's start %d", i, r.w.trim.index)
	case i <= r.w.prev.index:
		r.w.rewind(i - 1)
	}
	if i > r.w.lastIndex()+1 {
		return fmt.Errorf("entry %d follows entry %d", i, r.w.lastIndex())
	}
	if before, ok := r.w.lookup(i - 1); ok && e.GetTerm() < before {
		return fmt.Errorf("entry %d has term %d, the entry before has %d", i, e.GetTerm(), before)
	}
	if err := r.w.append(e, pos, recBytes); err != nil {
		return err
	}
	r.w.forget(uint64(r.cfg.Applied), r.cfg.CatchupEntries, r.cfg.CatchupBytes)
	return nil
}

func (r *recovery) base(b baseRecord) error {
	if b.member != r.cfg.ID || b.cluster != r.cfg.ClusterID {
		return fmt.Errorf("%w: it is of member %x of cluster %x, this is %x of %x",
			ErrWrongMember, b.member, b.cluster, r.cfg.ID, r.cfg.ClusterID)
	}
	if err := r.state(b.hs); err != nil {
		return err
	}
	r.sawBase = true
	at := b.at
	term, known := uint64(0), false
	if r.started {
		term, known = r.w.lookup(at.index)
	}
	switch {
	case r.started && at.index < r.w.trim.index:
		return nil // an older base whose entries have been trimmed since
	case known && r.floating && at.index == r.w.trim.index:
		r.w.settle(at.term)
	case known && term == at.term:
		r.w.trimTo(at.index)
	default: // the first record, or a snapshot took the log's place
		r.w.reset(at)
	}
	r.started, r.floating, r.bootConf = true, false, b.confState
	return nil
}

// finish checks the recovered log against the store and settles where the
// member starts from. It returns the applied position and the membership.
func (r *recovery) finish() (applied entryID, conf *raftpb.ConfState, err error) {
	applied = entryID{uint64(r.cfg.Applied), uint64(r.cfg.AppliedTerm)}
	conf = &raftpb.ConfState{}
	if err := proto.Unmarshal(r.cfg.ConfState, conf); err != nil {
		return applied, nil, fmt.Errorf("raft: the store's membership: %w", err)
	}
	if !r.started {
		applied, err = r.found(applied, conf)
		return applied, conf, err
	}
	if !r.sawBase || r.floating {
		return applied, nil, &CorruptError{What: fmt.Sprintf("the log starts at entry %d without a base record", r.w.trim.index+1)}
	}
	if applied.index == 0 {
		if applied, conf, err = r.fromBootstrap(conf); err != nil {
			return applied, nil, err
		}
	} else if err := r.checkApplied(applied); err != nil {
		return applied, nil, err
	}
	r.w.forget(applied.index, r.cfg.CatchupEntries, r.cfg.CatchupBytes)
	r.hs.commit = min(max(r.hs.commit, applied.index), r.w.lastIndex())
	r.hs.term = max(r.hs.term, applied.term)
	return applied, conf, nil
}

// found starts a new log, if that is allowed. A new cluster's log starts after
// index 1, not 0, so that a member that joins with an empty log can never be
// served from the log alone: it needs the first membership, from a snapshot.
func (r *recovery) found(applied entryID, conf *raftpb.ConfState) (entryID, error) {
	if applied.index > 0 && r.doubtful {
		// The log's only batches were damaged. The store has what was applied.
		r.w.reset(applied)
		r.hs = hardState{term: applied.term, commit: applied.index}
		r.needBase = true
		return applied, nil
	}
	if applied.index > 0 {
		return applied, fmt.Errorf("%w: applied index %d; restore the log or start from a snapshot", ErrNoLog, applied.index)
	}
	r.newLog, r.needBase = true, true
	switch r.cfg.NewLog {
	case BootstrapNewLog:
		if len(conf.Voters) == 0 {
			return applied, fmt.Errorf("raft: a new cluster needs at least one voter in Config.ConfState")
		}
		applied = entryID{index: 1, term: 1}
		r.hs = hardState{term: 1, commit: 1}
		r.bootConf = r.cfg.ConfState
	case JoinNewLog:
		if len(conf.Voters) != 0 {
			return applied, fmt.Errorf("raft: a joining member must not bring voters")
		}
	default:
		return applied, ErrNewLog
	}
	r.w.reset(applied)
	return applied, nil
}

// fromBootstrap is a restart before the first checkpoint: everything is in the
// log, and the membership of the bootstrap too.
func (r *recovery) fromBootstrap(conf *raftpb.ConfState) (entryID, *raftpb.ConfState, error) {
	at := r.w.trim
	if at.index > 1 {
		return at, nil, fmt.Errorf("%w: the log starts after index %d", ErrNoStore, at.index)
	}
	boot := &raftpb.ConfState{}
	if err := proto.Unmarshal(r.bootConf, boot); err != nil {
		return at, nil, &CorruptError{What: "membership of the bootstrap: " + err.Error()}
	}
	if len(r.cfg.ConfState) > 0 && at.index == 1 {
		if err := boot.Equivalent(conf); err != nil {
			return at, nil, fmt.Errorf("%w: bootstrapped with other members: %w", ErrHistoryMismatch, err)
		}
	}
	return at, boot, nil
}

func (r *recovery) checkApplied(applied entryID) error {
	last := r.w.lastIndex()
	term, known := r.w.lookup(applied.index)
	switch {
	case known && term == applied.term:
		return nil
	case r.intent == applied && applied.index > r.w.trim.index:
		// A crash after the store took a snapshot over and before the log
		// said so: the store is right.
		r.w.reset(applied)
		r.needBase = true
		return nil
	case r.cfg.Replaced && applied.index > r.w.trim.index:
		// The state is one that was committed, and includes what the log has up to
		// there. What the log has behind an entry of another term never will be.
		r.w.reset(applied)
		r.needBase = true
		return nil
	case applied.index > last && r.doubtful:
		// What is applied was committed. The leader has what comes after it.
		r.w.reset(applied)
		r.needBase = true
		return nil
	case applied.index > last:
		return fmt.Errorf("%w: applied %d, last entry %d", ErrLogEndsEarly, applied.index, last)
	case applied.index < r.w.trim.index:
		return fmt.Errorf("%w: applied %d, first entry %d", ErrLogStartsLate, applied.index, r.w.trim.index+1)
	}
	return fmt.Errorf("%w: the entry at the applied index %d has term %d in the log and %d in the store",
		ErrHistoryMismatch, applied.index, term, applied.term)
}

// rewind makes the log end at index i, which is at or before what is in memory.
// Only recovery needs it: it forgets entries before it knows that they stand.
func (w *window) rewind(i uint64) {
	term, _ := w.lookup(i)
	w.ents.truncate(0)
	w.bytes = 0
	w.prev = entryID{i, term}
	for w.runs.len() > 1 && w.runs.back().index > i {
		w.runs.truncate(w.runs.len() - 1)
	}
	for w.marks.len() > 0 && w.marks.back().index > i {
		w.marks.truncate(w.marks.len() - 1)
	}
}

// settle sets the term of the log's start once it is known.
func (w *window) settle(term uint64) {
	w.trim.term = term
	w.runs.front().term = term
	if w.prev.index == w.trim.index {
		w.prev.term = term
	}
}
