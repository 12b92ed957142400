package disk

import "bytes"

// NewQueue returns a Queue on m's files. Wait completes a seeded random, not
// empty choice of the writes in flight, in random order; until then a crash may
// keep, drop or tear them. The Queue panics if a buffer
// changes in flight or two writes in flight overlap.
func (m *Mem) NewQueue(depth int) (Queue, error) {
	return &memQueue{m: m, depth: depth}, nil
}

type memQueue struct {
	m      *Mem
	depth  int
	flying []*memFlight // guarded by m.mu, as all below
	ended  []Completion // by Close, not yet given out
	closed bool
}

type memFlight struct {
	w     Write
	f     *memFile
	write *memWrite
}

// Submit implements Queue.
func (q *memQueue) Submit(w Write) error {
	q.m.mu.Lock()
	defer q.m.mu.Unlock()
	return wrap("submit", w.File.Name(), w.Off, q.submitLocked(w))
}

func (q *memQueue) submitLocked(w Write) error {
	f := w.File.(*memFile)
	if err := f.usableLocked(); err != nil {
		return err
	}
	switch {
	case q.closed:
		return ErrClosed
	case len(q.flying) >= q.depth:
		return ErrQueueFull
	case f.mode != Direct || !aligned(w.Buf, w.Off):
		return ErrMisaligned
	}
	if err := q.m.faultLocked(OpSubmit, f.name); err != nil {
		return err
	}
	fl := &memFlight{w: w, f: f}
	fl.write = &memWrite{kind: dataWrite, off: w.Off, data: append([]byte(nil), w.Buf...), n: int64(len(w.Buf)), direct: true}
	for _, p := range f.in.pend {
		if p.direct && p.off < fl.write.end() && w.Off < p.end() {
			panic("disk: two writes in flight overlap in " + f.name)
		}
	}
	f.in.pend = append(f.in.pend, fl.write)
	q.flying = append(q.flying, fl)
	q.m.cond.Broadcast()
	return q.m.stepLocked()
}

// Wait implements Queue.
func (q *memQueue) Wait(done []Completion) (int, error) {
	q.m.mu.Lock()
	defer q.m.mu.Unlock()
	for len(q.flying) == 0 && !q.closed && !q.m.off {
		q.m.cond.Wait()
	}
	if q.m.off {
		return 0, wrap("wait", "", 0, ErrCrashed)
	}
	if q.closed {
		n := copy(done, q.ended)
		q.ended = q.ended[n:]
		if n == 0 {
			return 0, wrap("wait", "", 0, ErrClosed)
		}
		return n, nil
	}
	want := 1 + q.m.rng.IntN(min(len(q.flying), len(done)))
	n := 0
	for ; n < want; n++ {
		c, err := q.completeLocked(q.m.rng.IntN(len(q.flying)))
		if err != nil {
			if n > 0 { // told now; the next call says that the power is off
				return n, nil
			}
			return 0, wrap("wait", "", 0, err)
		}
		done[n] = c
	}
	return n, nil
}

// completeLocked ends flight i. The error is ErrCrashed or nil.
func (q *memQueue) completeLocked(i int) (Completion, error) {
	fl := q.flying[i]
	fault := q.m.faultLocked(OpComplete, fl.f.name)
	if err := q.m.stepLocked(); err != nil {
		return Completion{}, err
	}
	q.flying = append(q.flying[:i], q.flying[i+1:]...)
	if fault != nil {
		fl.drop()
		fl.f.failedWriteLocked(fl.write, fault)
		return Completion{Token: fl.w.Token, Err: wrap("write", fl.f.name, fl.w.Off, fault)}, nil
	}
	if !bytes.Equal(fl.w.Buf, fl.write.data) {
		panic("disk: buffer of " + fl.f.name + " changed while its write was in flight")
	}
	fl.f.in.complete(fl.write)
	return Completion{Token: fl.w.Token}, nil
}

// drop takes the write out of the inode's pending ones.
func (fl *memFlight) drop() {
	pend := fl.f.in.pend
	for i, w := range pend {
		if w == fl.write {
			fl.f.in.pend = append(pend[:i], pend[i+1:]...)
			return
		}
	}
}

// Close implements Queue: what is in flight completes, and Wait still gives it out.
func (q *memQueue) Close() error {
	q.m.mu.Lock()
	defer q.m.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	q.closed = true
	for len(q.flying) > 0 && !q.m.off {
		c, err := q.completeLocked(0)
		if err != nil {
			break
		}
		q.ended = append(q.ended, c)
	}
	q.m.cond.Broadcast()
	return nil
}
