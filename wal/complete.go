package wal

import (
	"errors"
	"time"

	"quire/disk"
)

// Wait blocks until more of the log is durable than it told the last time, and
// returns the position up to which all records are durable. One goroutine calls
// it in a loop and tells the waiters.
//
// When completions arrive, a batch that Submit held back is submitted here as
// soon as the gate permits, before Wait returns: the owner need not call Submit
// again.
//
// An error is final: *WriteError when a write failed, ErrClosed after Close.
// The position that comes with it is still right, nothing after it is known.
func (l *Log) Wait() (Pos, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.durablePos > l.told {
			l.told = l.durablePos
			return l.told, nil
		}
		if l.err != nil {
			return l.durablePos, l.err
		}
		l.progressLocked()
	}
}

// Poll is Wait for an owner that steps the log itself (Options.Manual): if
// anything is in flight or waits to be, it waits for some of it and settles it;
// then it returns the durable position, moved or not. With nothing to wait for it
// returns at once.
func (l *Log) Poll() (Pos, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.flying)+len(l.sealed) > 0 && l.err == nil {
		l.progressLocked()
	}
	l.told = l.durablePos
	return l.durablePos, l.err
}

// progressLocked waits until something has changed: takes completions if nobody
// else does, or waits for the one who does. In a Manual log that lacks a
// segment it makes one.
func (l *Log) progressLocked() {
	switch {
	case l.opts.Manual && l.starved:
		l.mu.Unlock()
		_ = l.Maintain() // its error is the log's
		l.mu.Lock()
	case l.reaping, len(l.flying) == 0 && (l.starved || l.closing):
		l.cond.Wait()
	default:
		l.reapLocked()
	}
}

// reapLocked waits for completions and settles them. It releases mu meanwhile.
func (l *Log) reapLocked() {
	l.reaping = true
	l.mu.Unlock()
	n, err := l.queue.Wait(l.done)
	l.mu.Lock()
	l.reaping = false
	now := time.Now()
	for _, c := range l.done[:n] {
		l.settleLocked(c, now)
	}
	if err != nil {
		l.failQueueLocked(err)
	}
	l.advanceLocked(now)
	if l.err == nil {
		l.pumpLocked()
		l.gateLocked()
	}
	l.cond.Broadcast()
}

// failQueueLocked handles the end of the queue.
func (l *Log) failQueueLocked(err error) {
	switch {
	case l.err != nil:
	case errors.Is(err, disk.ErrClosed) && l.closing:
		l.err = ErrClosed
	default:
		l.failLocked(&WriteError{File: l.segs[len(l.segs)-1].name, Err: err})
	}
}

// settleLocked notes the end of one write.
func (l *Log) settleLocked(c disk.Completion, now time.Time) {
	b := l.slots[c.Token]
	l.slots[c.Token] = nil
	if c.Err != nil {
		l.failLocked(&WriteError{File: b.seg.name, Off: b.off, Seq: b.seq, Err: c.Err})
		return
	}
	b.done = true
	size := int(b.size)
	l.stats.Batches++
	l.stats.BatchBytes += uint64(size)
	if l.opts.OnWrite != nil {
		l.opts.OnWrite(WriteInfo{Bytes: size, Ops: b.ops, Took: now.Sub(b.started)})
	}
}

// advanceLocked moves the durable position over the completed prefix of what is
// in flight, and nothing else: a batch that completed behind one that did not
// is worth nothing after a crash.
func (l *Log) advanceLocked(now time.Time) {
	if l.err != nil {
		return // after the first error nothing more is acknowledged
	}
	k := 0
	for k < len(l.flying) && l.flying[k].done {
		b := l.flying[k]
		l.durablePos, l.durableSeq = b.endPos, b.seq
		l.flyingOps -= b.ops
		b.seg.flying--
		b.seg.durable = true
		l.retireLocked(b.seg)
		l.free = append(l.free, b)
		k++
	}
	if k == 0 {
		return
	}
	n := copy(l.flying, l.flying[k:])
	l.flying = l.flying[:n]
	l.lastWrite = now
}
