package raft

import (
	"fmt"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// window is the raft log as the member sees it: the newest entries in memory,
// the terms of all entries that are in the durable log, and roughly where in
// the durable log they lie. It is owned by the core.
//
//	trim ≤ prev ≤ last
//	(trim, last]  is in the durable log (or on the way to it)
//	(prev, last]  is in memory too
//
// What falls out of memory is applied; only followers can ask for it, and get
// a snapshot instead.
type window struct {
	trim entryID // the durable log starts after it
	prev entryID // the entries in memory start after it
	ents fifo[*raftpb.Entry]
	// bytes is the memory held by ents, by payload and entryOverheadBytes.
	bytes int

	// runs are the terms of [trim, last], as the first index of each term.
	runs fifo[entryID]
	// marks are positions in the durable log, one per markBytes or markEvery
	// entries.
	marks     fifo[mark]
	markEvery uint64
	// written counts bytes appended since Open; LogBytes is its distance to
	// the mark of trim.
	written, trimmed uint64
}

// mark says that entries with an index of at least index lie at pos or behind.
type mark struct {
	index   uint64
	pos     Pos
	written uint64
}

// markBytes and defaultMarkEvery are the distance of marks: the log trims whole
// segments of 64 MiB, so a mebibyte is fine enough, and a log of 1 GiB needs
// 1024 marks. An entry can be a write of its own, of at least 4 KiB.
const (
	markBytes        = 1 << 20
	defaultMarkEvery = 256
)

// entryOverheadBytes is about what an entry costs in memory beside its payload.
const entryOverheadBytes = 128

func entryMemBytes(e *raftpb.Entry) int { return len(e.GetData()) + entryOverheadBytes }

// reset makes the log empty, starting after id.
func (w *window) reset(id entryID) {
	w.trim, w.prev = id, id
	w.ents.truncate(0)
	w.bytes = 0
	w.runs.truncate(0)
	w.runs.push(id)
	w.marks.truncate(0)
}

func (w *window) lastIndex() uint64 { return w.prev.index + uint64(w.ents.len()) }

// lookup returns the term of index i, for trim ≤ i ≤ last.
func (w *window) lookup(i uint64) (uint64, bool) {
	if i < w.trim.index || i > w.lastIndex() {
		return 0, false
	}
	for k := w.runs.len() - 1; k >= 0; k-- {
		if r := w.runs.at(k); r.index <= i {
			return r.term, true
		}
	}
	return 0, false
}

// append adds e, which lies at pos of the durable log, and drops what it
// replaces: e and everything after it in the old log.
func (w *window) append(e *raftpb.Entry, pos Pos, recBytes int) error {
	i := e.GetIndex()
	switch last := w.lastIndex(); {
	case i > last+1:
		return fmt.Errorf("entry %d follows entry %d", i, last)
	case i <= w.prev.index:
		return fmt.Errorf("entry %d replaces an entry that was applied, the log in memory starts after %d", i, w.prev.index)
	case i <= last:
		w.truncateFrom(i)
	}
	w.ents.push(e)
	w.bytes += entryMemBytes(e)
	if t := e.GetTerm(); w.runs.back().term != t {
		w.runs.push(entryID{i, t})
	}
	w.addMark(i, pos, recBytes)
	return nil
}

func (w *window) truncateFrom(i uint64) {
	keep := int(i - w.prev.index - 1)
	for k := keep; k < w.ents.len(); k++ {
		w.bytes -= entryMemBytes(*w.ents.at(k))
	}
	w.ents.truncate(keep)
	for w.runs.len() > 1 && w.runs.back().index >= i {
		w.runs.truncate(w.runs.len() - 1)
	}
	for w.marks.len() > 0 && w.marks.back().index >= i {
		w.marks.truncate(w.marks.len() - 1)
	}
}

func (w *window) addMark(i uint64, pos Pos, recBytes int) {
	if w.marks.len() == 0 || w.written-w.marks.back().written >= markBytes || i-w.marks.back().index >= w.markEvery {
		w.marks.push(mark{i, pos, w.written})
	}
	w.written += uint64(recBytes)
}

// forget drops applied entries from memory until at most maxEntries and
// maxBytes of those up to applied are left.
func (w *window) forget(applied uint64, maxEntries, maxBytes int) {
	for w.ents.len() > 0 {
		e := *w.ents.front()
		i := e.GetIndex()
		if i > applied || (applied-i < uint64(maxEntries) && w.bytes <= maxBytes) {
			return
		}
		w.bytes -= entryMemBytes(e)
		w.prev = entryID{i, e.GetTerm()}
		w.ents.pop()
	}
}

// trimTo moves the start of the durable log behind index c, whose term must be
// known, and returns where the rest begins; ok is false if nothing is there yet.
func (w *window) trimTo(c uint64) (pos Pos, ok bool) {
	term, known := w.lookup(c)
	if !known {
		return 0, false
	}
	w.trim = entryID{c, term}
	for w.runs.len() > 1 && w.runs.at(1).index <= c {
		w.runs.pop()
	}
	*w.runs.front() = w.trim
	if w.prev.index < c {
		w.forget(c, 0, 0)
	}
	for w.marks.len() > 1 && w.marks.at(1).index <= c+1 {
		w.marks.pop()
	}
	if w.marks.len() == 0 || w.marks.front().index > c+1 {
		return 0, false
	}
	w.trimmed = w.marks.front().written
	return w.marks.front().pos, true
}

// logBytes is about how much of the durable log a restart would read.
func (w *window) logBytes() uint64 { return w.written - w.trimmed }

// storage is the window as etcdraft.Storage. RawNode calls it, so under the
// core's lock.
type storage struct {
	window
	hs   hardState // at Open
	conf *raftpb.ConfState
	snap func() (*raftpb.Snapshot, bool)
}

var _ etcdraft.Storage = (*storage)(nil)

func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return &raftpb.HardState{Term: &s.hs.term, Vote: &s.hs.vote, Commit: &s.hs.commit}, s.conf, nil
}

// Entries returns a slice of its own: the window reuses its memory.
func (s *storage) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	if lo <= s.prev.index {
		return nil, etcdraft.ErrCompacted
	}
	if hi > s.lastIndex()+1 {
		return nil, etcdraft.ErrUnavailable
	}
	from, n := int(lo-s.prev.index-1), int(hi-lo)
	size := uint64(0)
	for k := 0; k < n; k++ {
		size += uint64(len((*s.ents.at(from + k)).GetData())) + entryHeadBytes
		if size > maxSize && k > 0 {
			n = k
		}
	}
	out := make([]*raftpb.Entry, n)
	copy(out, s.ents.items[s.ents.head+from:])
	return out, nil
}

func (s *storage) Term(i uint64) (uint64, error) {
	if i < s.prev.index {
		return 0, etcdraft.ErrCompacted
	}
	if i > s.lastIndex() {
		return 0, etcdraft.ErrUnavailable
	}
	if i == s.prev.index {
		return s.prev.term, nil
	}
	return (*s.ents.at(int(i - s.prev.index - 1))).GetTerm(), nil
}

func (s *storage) LastIndex() (uint64, error) { return s.lastIndex(), nil }

func (s *storage) FirstIndex() (uint64, error) { return s.prev.index + 1, nil }

func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	if s.snap != nil {
		if sn, ok := s.snap(); ok {
			return sn, nil
		}
	}
	return nil, etcdraft.ErrSnapshotTemporarilyUnavailable
}
