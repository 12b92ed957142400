package pagestore

import (
	"errors"
	"fmt"
	"io/fs"

	"quire/disk"
)

// Checkpoint is what Open found: the newest committed Cut.
type Checkpoint struct {
	Meta     []byte
	State    []byte // nil if none was ever given
	Sequence uint64
	// Damaged tells why one of the two copies of the manifest could not be
	// read, "" if both could. After a crash during a Commit that is normal.
	// Both are whole again when Open returns.
	Damaged string
}

// Open recovers the store in fsys: the newest checkpoint, or nil if there is
// none. What lies behind the checkpoint is thrown away; files of the store that
// the checkpoint does not name are removed, all other files are left alone.
//
// It changes nothing when it refuses: with a *CorruptError when both copies of
// the manifest are damaged, when a segment or the state file is missing or
// short, or when the state is damaged; with a *VersionError for another format.
// Pages are verified when they are read, by Hints, Scrub and Check.
func Open(fsys disk.FS, opts Options) (*Store, *Checkpoint, error) {
	if err := opts.Validate(); err != nil {
		return nil, nil, err
	}
	r, err := inspect(fsys)
	if err != nil {
		return nil, nil, fmt.Errorf("open page store: %w", err)
	}
	s := newStore(fsys, opts.withDefaults())
	if err := s.recover(r); err != nil {
		s.closeFiles()
		return nil, nil, fmt.Errorf("open page store: %w", err)
	}
	if !s.opts.Inline {
		s.done.Add(1)
		go s.writeBehind()
	}
	if !r.root.committed {
		return s, nil, nil
	}
	return s, &Checkpoint{
		Meta: r.root.meta, State: r.state, Sequence: r.root.sequence, Damaged: r.damaged,
	}, nil
}

func newStore(fsys disk.FS, opts Options) *Store {
	s := &Store{fsys: fsys, opts: opts, wake: make(chan struct{}, 1)}
	s.cache.limit = opts.CacheBytes
	s.writer = appender{s: s, origin: fromWriter}
	s.copier = appender{s: s, origin: fromReclaim}
	s.mu.progress.L = &s.mu
	s.mu.nextID = 1
	s.segments.Store(&map[segmentID]*segment{})
	s.pins.age.Store(new(age))
	return s
}

// inspection is what Open learns before it changes anything.
type inspection struct {
	slots   [2]slot
	newest  int       // of slots; -1: a fresh directory
	root    *manifest // an empty one for a fresh directory
	state   []byte
	damaged string
	litter  []string // files of the store that root does not name
}

// inspect reads the roots, the state and the sizes of all files.
func inspect(fsys disk.FS) (*inspection, error) {
	r := &inspection{}
	files, err := listFiles(fsys)
	if err != nil {
		return nil, err
	}
	if r.slots, err = readSlots(fsys); err != nil {
		return nil, err
	}
	if r.newest, err = newest(r.slots); err != nil {
		return nil, err
	}
	if r.newest < 0 {
		if err := mayStartFresh(r.slots, files); err != nil {
			return nil, err
		}
		r.root = &manifest{nextID: 1}
		return r, nil
	}
	r.root = r.slots[r.newest].m
	if other := r.slots[1-r.newest]; other.m == nil {
		r.damaged = other.err.Error()
	}
	if err := r.root.present(files); err != nil {
		return nil, err
	}
	if r.state, err = readState(fsys, r.root.state); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = place{file: r.root.state.fileName()}.corrupt("state file is missing", uint64(r.root.state.bytes), 0)
		}
		return nil, err
	}
	r.litter = r.root.unnamed(files)
	return r, nil
}

// listFiles returns the sizes of the store's own files, the slots excepted.
func listFiles(fsys disk.FS) (map[string]int64, error) {
	infos, err := fsys.List("")
	if err != nil {
		return nil, err
	}
	files := map[string]int64{}
	for _, f := range infos {
		_, isSegment := parseSegmentName(f.Name)
		_, isState := parseStateName(f.Name)
		if isSegment || isState {
			files[f.Name] = f.SizeBytes
		}
	}
	return files, nil
}

// mayStartFresh decides about a directory without a whole manifest. The slots
// are written one after the other, and both before any other file: so a store
// that was ever opened has at most one slot that is not whole. Two slots that
// were written and neither whole, or files without a whole slot, are damage.
func mayStartFresh(slots [2]slot, files map[string]int64) error {
	if len(files) == 0 && (slots[0].blank || slots[1].blank) {
		return nil
	}
	for i, s := range slots {
		if !s.blank {
			return fmt.Errorf("no usable manifest: %w", s.err)
		}
		if i == 1 {
			return place{file: slotNames[0]}.corrupt("no manifest, but segments or state files", 1, 0)
		}
	}
	return nil
}

// present checks that every file that the manifest names is there and as long
// as it has to be.
func (m *manifest) present(files map[string]int64) error {
	for _, e := range m.segments {
		at := place{file: segmentName(e.id)}
		size, ok := files[at.file]
		need := e.fileEnd()
		if !ok {
			return at.corrupt("segment file is missing", uint64(need), 0)
		}
		if at.off = size; size < need {
			return at.corrupt("segment file is too short", uint64(need), uint64(size))
		}
	}
	return nil
}

// unnamed returns the files that the manifest does not name, in no order.
func (m *manifest) unnamed(files map[string]int64) []string {
	named := map[string]bool{m.state.fileName(): true}
	for _, e := range m.segments {
		named[segmentName(e.id)] = true
	}
	var rest []string
	for name := range files {
		if !named[name] {
			rest = append(rest, name)
		}
	}
	return rest
}

// recover brings the directory and the store to the state of the checkpoint.
//
// The new incarnation comes before everything that takes something away. What
// was read may be in the kernel's memory only, if the process before this one
// was killed between a write and its sync: the manifest on the disk may still be
// an older one, which names the files and the lengths that are to go. Writing
// the slots makes the manifest that was chosen durable.
func (s *Store) recover(r *inspection) error {
	table := make(map[segmentID]*segment, len(r.root.segments))
	for _, e := range r.root.segments {
		seg, err := s.recoverSegment(e)
		if err != nil {
			return err
		}
		table[e.id] = seg
	}
	s.segments.Store(&table)
	s.mu.nextID = r.root.nextID
	if err := s.beginIncarnation(r); err != nil {
		return err
	}
	for _, e := range r.root.segments {
		if err := table[e.id].cutOff(e.fileEnd()); err != nil {
			return err
		}
	}
	for _, name := range sorted(r.litter) {
		if err := removeIfThere(s.fsys, name); err != nil {
			return err
		}
	}
	if name := r.root.state.fileName(); name != "" {
		s.committing.litter = []string{name}
	}
	return nil
}

// recoverSegment opens a segment that the checkpoint names. Nothing is appended
// to it again: the store goes on in a new segment, so that no byte is written
// twice in one epoch.
func (s *Store) recoverSegment(e segmentEntry) (*segment, error) {
	f, err := s.fsys.Open(segmentName(e.id), disk.ReadWrite)
	if err != nil {
		return nil, err
	}
	seg := newSegment(e.id, e.epoch, fromRecovered, min(e.end, maxSegmentBytes))
	seg.file.Store(&fileBox{f})
	seg.flushed.Store(e.end)
	seg.end, seg.cutEnd, seg.synced = e.end, e.end, e.end
	seg.records, seg.cutRecords = e.records, e.records
	seg.footerEnd, seg.full = e.footerEnd, true
	seg.tally.add(int64(e.records), e.end) // until Hints knows better
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pageBytes.Add(e.fileEnd())
	s.mu.order = append(s.mu.order, seg)
	return seg, nil
}

// cutOff removes what lies behind the checkpoint. It need not be durable: the
// next Open would do it again, and the footer that takes its place is synced.
func (g *segment) cutOff(want int64) error { return cutBack(g.file.Load(), want) }

// cutBack makes a file no longer than want.
func cutBack(f disk.File, want int64) error {
	size, err := f.Size()
	if err == nil && size > want {
		err = f.Truncate(want)
	}
	return err
}

// beginIncarnation makes the next incarnation durable, in both slots, before
// any page of it can be written.
func (s *Store) beginIncarnation(r *inspection) error {
	m := *r.root
	if r.newest < 0 {
		m.storeID = s.opts.Nonce()
	}
	m.sequence++
	m.incarnation++
	s.incarnation, s.storeID = m.incarnation, m.storeID
	if m.incarnation>>32 != 0 {
		return fmt.Errorf("pagestore: opened 2^32 times")
	}
	roots := &s.committing.roots
	for i, name := range slotNames {
		f, err := s.fsys.Open(name, disk.ReadWrite)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = s.fsys.Create(name, unitBytes)
		}
		if err != nil {
			return err
		}
		roots.files[i] = f
	}
	roots.newest = 1 // fresh: slot 0 is written first, as mayStartFresh assumes
	if r.newest >= 0 {
		// What was read may be in the kernel's memory only; the other slot,
		// which is written next, would then be the only one on the disk.
		// Bytes that are there already cannot be torn.
		roots.newest = r.newest
		if err := writeSlot(roots.files[r.newest], r.slots[r.newest].raw); err != nil {
			return err
		}
	}
	if _, err := roots.write(&m); err != nil {
		return err
	}
	s.setRootLocked(&m)
	return nil
}

// closeFiles closes everything that is open.
func (s *Store) closeFiles() {
	for _, seg := range s.list() {
		seg.release()
	}
	s.holdStateLocked("")
	s.committing.roots.close()
}
