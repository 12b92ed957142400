package disk

import (
	"errors"
	"io"
	"strings"
)

// Fault makes operations of a Mem fail.
type Fault struct {
	Kind    OpKind // OpAny: every counted kind
	Prefix  string // only names that begin so; "" all
	Nth     int    // the Nth matching operation from now, from 1
	Forever bool   // that one and all matching ones after it
	// Err is what the operation returns: an errno such as unix.EIO or
	// unix.ENOSPC, or io.ErrShortWrite for a write of which some leading
	// sectors arrive.
	Err error

	seen int
}

// InjectErr adds f to the faults. Faults are looked at in order of injection;
// the first that matches and is due counts.
func (m *Mem) InjectErr(f Fault) {
	m.mu.Lock()
	m.faults = append(m.faults, &f)
	m.mu.Unlock()
}

// ClearErrs takes all faults away.
func (m *Mem) ClearErrs() {
	m.mu.Lock()
	m.faults = nil
	m.mu.Unlock()
}

// faultLocked returns the error that an operation is to fail with, or nil. It
// is asked once per operation, before the operation is issued.
func (m *Mem) faultLocked(kind OpKind, name string) error {
	var err error
	for _, f := range m.faults {
		if f.Kind != kind && (f.Kind != OpAny || kind == OpRead) {
			continue
		}
		if !strings.HasPrefix(name, f.Prefix) {
			continue
		}
		f.seen++
		if err == nil && (f.seen == f.Nth || f.Forever && f.seen > f.Nth) {
			err = f.Err
			m.faulted++
		}
	}
	return err
}

// failedWriteLocked does what a failed write may do to the file: nothing for
// ENOSPC, the leading sectors for a short write, anything for another error.
func (f *memFile) failedWriteLocked(w *memWrite, err error) {
	var done []*memWrite
	switch {
	case errors.Is(err, io.ErrShortWrite):
		k := f.m.rng.Int64N(w.n/sector+1) * sector
		done = []*memWrite{w.part(0, min(k, w.n))}
	case w.direct:
		done = w.tear(f.m.rng)
	}
	for _, p := range done {
		if p.n == 0 {
			continue
		}
		p.apply(&f.in.cur)
		if w.direct {
			p.apply(&f.in.dur)
		} else {
			f.in.pend = append(f.in.pend, p)
		}
	}
}

// failedSyncLocked does what Linux does when writing back fails: some of the
// pages arrived, all of them are clean now and stay readable, and no later Sync
// will write them.
func (f *memFile) failedSyncLocked() {
	rest := f.in.pend[:0]
	for _, w := range f.in.pend {
		if w.direct {
			rest = append(rest, w)
			continue
		}
		for _, p := range w.survive(f.m.rng, CrashChoice{}) {
			p.apply(&f.in.dur)
		}
	}
	f.in.pend = rest
}

// Faulted returns how many operations have failed by injected faults.
func (m *Mem) Faulted() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.faulted
}
