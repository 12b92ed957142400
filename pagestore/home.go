package pagestore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"

	"quire/disk"
)

// A Home is the directory in which a member's store lies, and those that it
// receives from other members to go on from. The first store lies in the
// directory itself. A received one lies in a directory named by a number, and is
// complete before its record, a file beside it, is renamed:
//
//	incoming-<8 hex digits>   being received; content: the manifest as it came
//	current-<8 hex digits>    took the place of the store before it
//
// The record is there before the first file of its directory and goes after the
// last one. The highest number that is current counts; without one it is the
// first store that does. So the rename is the moment at which the store changes,
// and there is nothing about it that could be torn.
type Home struct {
	fsys       disk.FS
	chunkBytes int // of one fetch
	mu         struct {
		sync.Mutex
		current  uint32 // 0: the first store
		highest  uint32 // number ever seen
		incoming []*Incoming
	}
}

const (
	recordCurrent  = "current"
	recordIncoming = "incoming"
	recordNew      = "incoming.new" // a record that is being written
)

func recordName(kind string, number uint32) string { return fmt.Sprintf("%s-%08x", kind, number) }

// parseRecord is the inverse of recordName.
func parseRecord(name string) (kind string, number uint32, ok bool) {
	for _, kind := range []string{recordCurrent, recordIncoming} {
		if _, err := fmt.Sscanf(name, kind+"-%08x", &number); err == nil && number > 0 && recordName(kind, number) == name {
			return kind, number, true
		}
	}
	return "", 0, false
}

// storeDir is the name of a store's directory, "" of the first one's.
func storeDir(number uint32) string {
	if number == 0 {
		return ""
	}
	return fmt.Sprintf("%08x", number)
}

// Locate returns the directory of the current store, and changes nothing.
func Locate(fsys disk.FS) (disk.FS, error) {
	infos, err := fsys.List("")
	if err != nil {
		return nil, err
	}
	current := uint32(0)
	for _, f := range infos {
		if kind, number, ok := parseRecord(f.Name); ok && kind == recordCurrent {
			current = max(current, number)
		}
	}
	return disk.Sub(fsys, storeDir(current)), nil
}

// OpenHome finds the current store and what has been received so far, and
// removes what belongs to neither.
func OpenHome(fsys disk.FS) (*Home, error) {
	h := &Home{fsys: fsys, chunkBytes: defaultChunkBytes}
	infos, err := fsys.List("")
	if err != nil {
		return nil, fmt.Errorf("open page store: %w", err)
	}
	var incoming []uint32
	for _, f := range infos {
		kind, number, ok := parseRecord(f.Name)
		if !ok {
			continue
		}
		h.mu.highest = max(h.mu.highest, number)
		if kind == recordCurrent {
			h.mu.current = max(h.mu.current, number)
		} else {
			incoming = append(incoming, number)
		}
	}
	if err := h.removeOlder(); err != nil {
		return nil, fmt.Errorf("open page store: %w", err)
	}
	for _, number := range incoming {
		if number < h.mu.current {
			continue // gone with the older stores
		}
		if err := h.recall(number); err != nil {
			return nil, fmt.Errorf("open page store: %w", err)
		}
	}
	return h, nil
}

// recall takes up what an earlier process began to receive, if its record was
// written in full.
func (h *Home) recall(number uint32) error {
	name := recordName(recordIncoming, number)
	raw, err := readWhole(h.fsys, name)
	if err != nil {
		return err
	}
	in := &Incoming{home: h, number: number, raw: raw}
	if in.manifest, err = decodeManifest(name, raw); err != nil {
		return in.remove()
	}
	h.mu.incoming = append(h.mu.incoming, in)
	return nil
}

// Store returns the directory of the current store, for Open.
func (h *Home) Store() disk.FS {
	h.mu.Lock()
	defer h.mu.Unlock()
	return disk.Sub(h.fsys, storeDir(h.mu.current))
}

// Incoming returns what is being or has been received, oldest first.
func (h *Home) Incoming() []*Incoming {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.mu.incoming)
}

// Install makes a whole Incoming the current store, durably and at once: after
// an error it may or may not have happened, and the process has to find out by
// starting again. The store before it stays until RemoveOlder, and readable
// through what is open of it.
func (h *Home) Install(in *Incoming) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !in.whole {
		panic("pagestore: an incoming store is installed that is not whole")
	}
	if err := h.fsys.Rename(recordName(recordIncoming, in.number), recordName(recordCurrent, in.number)); err != nil {
		return fmt.Errorf("install store %d: %w", in.number, err)
	}
	h.mu.current = in.number
	h.forgetLocked(in)
	return nil
}

// Discard removes an Incoming. No Fetch of it may be under way.
func (h *Home) Discard(in *Incoming) error {
	h.mu.Lock()
	h.forgetLocked(in)
	h.mu.Unlock()
	return in.remove()
}

func (h *Home) forgetLocked(in *Incoming) {
	h.mu.incoming = slices.DeleteFunc(h.mu.incoming, func(o *Incoming) bool { return o == in })
}

// RemoveOlder removes the stores that the current one has replaced, and what was
// received before it.
func (h *Home) RemoveOlder() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.incoming = slices.DeleteFunc(h.mu.incoming, func(in *Incoming) bool { return in.number < h.mu.current })
	return h.removeOlder()
}

// removeOlder removes every store with a lower number than the current one, and
// unfinished records.
func (h *Home) removeOlder() error {
	infos, err := h.fsys.List("")
	if err != nil {
		return err
	}
	if h.mu.current > 0 {
		if err := removeStore(h.fsys); err != nil {
			return err
		}
	}
	for _, f := range infos {
		_, number, ok := parseRecord(f.Name)
		switch {
		case f.Name == recordNew:
		case ok && number < h.mu.current:
			if err := removeAll(disk.Sub(h.fsys, storeDir(number))); err != nil {
				return err
			}
		default:
			continue
		}
		if err := h.fsys.Remove(f.Name); err != nil {
			return err
		}
	}
	return nil
}

// removeStore removes the files of a store, and leaves others alone. The slots
// go first: a store without them is none.
func removeStore(fsys disk.FS) error {
	for _, name := range slotNames {
		if err := removeIfThere(fsys, name); err != nil {
			return err
		}
	}
	files, err := listFiles(fsys)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	for _, name := range sorted(names) {
		if err := removeIfThere(fsys, name); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes every file of a directory, and with them the directory.
func removeAll(dir disk.FS) error {
	infos, err := dir.List("")
	if err != nil {
		return err
	}
	for _, f := range infos {
		if err := dir.Remove(f.Name); err != nil {
			return err
		}
	}
	return nil
}

// remove takes the directory away, then the record.
func (in *Incoming) remove() error {
	if err := removeAll(in.FS()); err != nil {
		return err
	}
	return in.home.fsys.Remove(recordName(recordIncoming, in.number))
}

// Receive begins to receive the checkpoint that a peer's Export describes, or
// goes on with it: what has been received of it or of another one before, or lies
// in the current store, and is the same, is used again. The others that were
// never finished are removed.
func (h *Home) Receive(raw []byte) (*Incoming, error) {
	m, err := decodeManifest("manifest of a peer", raw)
	if err != nil {
		return nil, err
	}
	if !m.committed {
		return nil, errors.New("pagestore: the peer's manifest is of no checkpoint")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var found *Incoming
	var rest []*Incoming
	for _, in := range h.mu.incoming {
		switch {
		case bytes.Equal(in.raw, raw):
			found = in
		case !in.whole:
			rest = append(rest, in)
		}
	}
	if found == nil {
		if found, err = h.begin(raw, m); err != nil {
			return nil, err
		}
		h.mu.incoming = append(h.mu.incoming, found)
	}
	if !found.whole {
		found.reuse()
	}
	for _, in := range rest {
		if err := in.remove(); err != nil {
			return nil, err
		}
		h.forgetLocked(in)
	}
	return found, nil
}

// begin makes the record of a new Incoming.
func (h *Home) begin(raw []byte, m *manifest) (*Incoming, error) {
	f, err := createFresh(h.fsys, recordNew, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := writeSlot(f, raw); err != nil {
		return nil, err
	}
	in := &Incoming{home: h, number: h.mu.highest + 1, raw: bytes.Clone(raw), manifest: m}
	if err := h.fsys.Rename(recordNew, recordName(recordIncoming, in.number)); err != nil {
		return nil, err
	}
	h.mu.highest++
	return in, nil
}

// sameSegment identifies a segment's content, whichever member it lies on: its
// store, id and epoch, and how far it has been named.
type sameSegment struct {
	store          uint64
	id             segmentID
	epoch          uint64
	end, footerEnd int64
}

func (m *manifest) identify(e segmentEntry) sameSegment {
	return sameSegment{m.storeID, e.id, e.epoch, e.end, e.footerEnd}
}

// reuse links files of other directories that in needs too. They are verified
// like the others: that the identity is the same is only a good guess.
//
// What stays in two directories must never be written to again. That holds for
// sealed segments only: an unsealed one gets a footer when its store is opened,
// and loses it when the other store is. Of what is about to be removed, all is
// taken. A file system that cannot link makes it all come over the network.
func (in *Incoming) reuse() {
	need := map[sameSegment]bool{}
	for _, e := range in.manifest.segments {
		need[in.manifest.identify(e)] = true
	}
	h := in.home
	link := func(number uint32, m *manifest, stays bool) {
		for _, e := range m.segments {
			if need[m.identify(e)] && (e.footerEnd != 0 || !stays) {
				in.link(number, segmentName(e.id), stays)
			}
		}
	}
	for _, other := range h.mu.incoming {
		if other != in {
			link(other.number, other.manifest, other.whole)
		}
	}
	slots, err := readSlots(disk.Sub(h.fsys, storeDir(h.mu.current)))
	if err != nil {
		return // the current store's trouble, not ours
	}
	if best, err := newest(slots); err == nil && best >= 0 {
		link(h.mu.current, slots[best].m, true)
	}
}

// link gives a file of another directory a name in this one: a whole one that of
// a reused file, which is never written to, a part that of a part. Without
// success it is fetched.
func (in *Incoming) link(from uint32, name string, stays bool) {
	h, to := in.home, storeDir(in.number)
	err := h.fsys.Link(path.Join(storeDir(from), name), path.Join(to, name+reusedSuffix))
	if errors.Is(err, fs.ErrNotExist) && !stays {
		_ = h.fsys.Link(path.Join(storeDir(from), name+partSuffix), path.Join(to, name+partSuffix))
	}
}
