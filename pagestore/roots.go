package pagestore

import (
	"errors"
	"io/fs"

	"quire/disk"
)

// slotNames are the two copies of the manifest. A commit writes and syncs the
// one that is not the newest, which makes the checkpoint, and then the other:
// at every moment one of them is whole, and at rest both are the newest, so that
// damage to one of them costs nothing.
var slotNames = [2]string{"manifest-0", "manifest-1"}

// roots are the opened slots. They belong to the holder of committing.
type roots struct {
	files  [2]disk.File
	newest int // the slot that is known to be whole
}

// write makes m durable in both slots. When durable is true the checkpoint
// stands, whatever the error: only its second copy is missing.
func (r *roots) write(m *manifest) (durable bool, err error) {
	b := m.encode()
	target := 1 - r.newest
	if err := writeSlot(r.files[target], b); err != nil {
		return false, err
	}
	r.newest = target
	return true, writeSlot(r.files[1-target], b)
}

func writeSlot(f disk.File, b []byte) error {
	if err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return &syncError{err}
	}
	return nil
}

// syncError marks an error of Sync, which is final whatever its errno: the data
// may be gone, and a second Sync would not tell.
type syncError struct{ error }

func (e *syncError) Unwrap() error { return e.error }

// isRetryable says whether a failed step of a commit may be tried again.
func isRetryable(err error) bool {
	var final *syncError
	return isNoSpace(err) && !errors.As(err, &final)
}

func (r *roots) close() {
	for _, f := range r.files {
		if f != nil {
			f.Close()
		}
	}
}

// slot is what a manifest file was found to hold.
type slot struct {
	missing bool
	blank   bool // never written
	raw     []byte
	m       *manifest
	err     error // why there is no m
}

// readSlots reads both manifest files.
func readSlots(fsys disk.FS) ([2]slot, error) {
	var slots [2]slot
	for i, name := range slotNames {
		b, err := readWhole(fsys, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			slots[i] = slot{missing: true, blank: true, err: err}
			continue
		case err != nil:
			return slots, err
		}
		slots[i].blank, slots[i].raw = blankSlot(b), b
		slots[i].m, slots[i].err = decodeManifest(name, b)
	}
	return slots, nil
}

// newest returns the slot with the newest whole manifest, or -1. It refuses when
// either is of another version, however old.
func newest(slots [2]slot) (int, error) {
	best := -1
	for i, s := range slots {
		var version *VersionError
		if errors.As(s.err, &version) {
			return -1, s.err
		}
		if s.m != nil && (best < 0 || s.m.sequence > slots[best].m.sequence) {
			best = i
		}
	}
	return best, nil
}

// readWhole returns a file's content.
func readWhole(fsys disk.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name, disk.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	return b, readFull(f, b, place{file: name})
}
