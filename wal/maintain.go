package wal

import (
	"errors"
	"io/fs"
	"time"

	"quire/disk"
)

// fillRetry is how long to wait before a file is tried to be made again after
// that failed: a try may fill the disk for a moment.
const fillRetry = 5 * time.Second

// background prepares and recycles segments and writes idle marks, until Close.
func (l *Log) background() {
	defer l.idle.Done()
	every := l.opts.IdleMark
	if every < 0 {
		every = time.Second // to try again after a failed fill
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		_ = l.Maintain() // its error is the log's, or is tried again
		select {
		case <-l.stop:
			return
		case <-l.kick:
		case now := <-tick.C:
			if l.opts.IdleMark > 0 && l.idleSince(now) >= l.opts.IdleMark {
				_ = l.Mark() // likewise
			}
		}
	}
}

func (l *Log) idleSince(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now.Sub(l.lastWrite)
}

// TrimBefore gives up the records before p. Segments that hold no other are
// recycled in the background. The segment being written and the one that holds
// the newest durable batch stay.
func (l *Log) TrimBefore(p Pos) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p > l.trimTo {
		l.trimTo = p
		l.wake()
	}
	return l.err
}

// Maintain does what there is to do about files: takes trimmed segments out of
// the log, makes the next segment ready. The background goroutine calls it; the
// owner of a Manual log does so itself.
//
// If no segment can be made (disk full), the error is returned, Stats().FillErr
// tells it, and it is tried again; it becomes final when a batch needs the
// segment. Any other error is final at once, because after a failed rename
// nobody knows which names are on the disk.
func (l *Log) Maintain() error {
	l.maintaining.Lock()
	defer l.maintaining.Unlock()
	for {
		l.mu.Lock()
		old, err := l.trimmableLocked(), l.err
		keep := len(l.spares) < l.opts.SpareSegments || len(l.spares)+len(l.ahead) == 0
		l.mu.Unlock()
		if old == nil || err != nil {
			break
		}
		if err := l.recycle(old, keep && old.sizeBytes == l.opts.SegmentBytes); err != nil {
			return l.fail(old.name, err)
		}
	}
	l.mu.Lock()
	need := l.aheadDueLocked() && l.err == nil && !l.closedLocked()
	if l.fillErr != nil && !l.starved && len(l.spares) == 0 && time.Since(l.fillTried) < fillRetry {
		need = false
	}
	l.mu.Unlock()
	if !need {
		return nil
	}
	return l.prepare()
}

// aheadShare is the share of a segment after which the next one is made ready:
// an idle log needs none, and a busy one takes longer for the rest than the
// filling takes.
const aheadShare = 8

// aheadDueLocked reports that a segment should be made ready.
func (l *Log) aheadDueLocked() bool {
	if len(l.ahead) > 0 {
		return false
	}
	cur := l.segs[len(l.segs)-1]
	return l.starved || cur.off >= cur.sizeBytes/aheadShare
}

// closedLocked reports that no segment will be needed any more.
func (l *Log) closedLocked() bool { return l.closing && len(l.sealed) == 0 }

func (l *Log) fail(file string, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failLocked(&WriteError{File: file, Err: err})
	return l.err
}

// trimmableLocked takes the oldest segment out of the list if nothing in it is
// wanted. Its successor must begin with a durable batch: the first segment of a
// log always does, which tells recovery a lost beginning from a new log.
func (l *Log) trimmableLocked() *segment {
	if len(l.segs) < 2 {
		return nil
	}
	old := l.segs[0]
	if old.lastPos >= l.trimTo || old.flying > 0 || !l.segs[1].durable {
		return nil
	}
	n := copy(l.segs, l.segs[1:])
	l.segs[n] = nil
	l.segs = l.segs[:n]
	return old
}

// recycle makes a spare of a segment, or removes it. Segments leave the log
// oldest first, each durably before the next, so that no gap can appear.
func (l *Log) recycle(old *segment, keep bool) error {
	if !keep {
		return l.dev.Remove(old.name)
	}
	name := spareName(old.number)
	if err := l.dev.Rename(old.name, name); err != nil {
		return err
	}
	l.mu.Lock()
	l.spares = append(l.spares, spare{name: name, num: old.number})
	l.mu.Unlock()
	return nil
}

// prepare makes the next segment ready.
func (l *Log) prepare() error {
	l.mu.Lock()
	number := l.segs[len(l.segs)-1].number + 1
	var have *spare
	if n := len(l.spares); n > 0 {
		have = &l.spares[n-1]
		l.spares = l.spares[:n-1]
	}
	l.mu.Unlock()
	if have == nil {
		name := spareName(number)
		f, err := fillTmp(l.dev, name, l.opts.SegmentBytes)
		if err != nil {
			return l.fillFailed(segmentName(number), err)
		}
		if err := finishSpare(l.dev, f, name); err != nil {
			return l.fail(name, err)
		}
		have = &spare{name: name}
	}
	h := segmentHeader{version: formatVersion, number: number, logID: l.logID, sizeBytes: l.opts.SegmentBytes}
	seg, err := makeSegment(l.dev, have.name, h)
	if err != nil {
		return l.fail(segmentName(number), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fillErr = nil
	l.ahead = append(l.ahead, seg)
	l.starved = false
	l.pumpLocked()
	l.gateLocked()
	l.cond.Broadcast()
	return l.err
}

// fillFailed notes that no file could be made.
func (l *Log) fillFailed(file string, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fillErr, l.fillTried = err, time.Now()
	if l.starved {
		l.failLocked(&WriteError{File: file, Err: err})
	}
	return err
}

// fillTmp makes the file of zeroes that is to be a spare. Its failure harms
// nothing: what it left is replaced by the next try, or removed by the next Open.
func fillTmp(dev disk.FS, spare string, sizeBytes int64) (disk.File, error) {
	f, err := dev.Create(spare+tmpSuffix, sizeBytes)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if err := dev.Remove(spare + tmpSuffix); err != nil {
		return nil, err
	}
	return dev.Create(spare+tmpSuffix, sizeBytes)
}

// finishSpare gives a filled file the name of a spare.
func finishSpare(dev disk.FS, f disk.File, spare string) error {
	if err := f.Close(); err != nil {
		return err
	}
	return dev.Rename(spare+tmpSuffix, spare)
}

// makeSegment makes a segment of a spare: header first, durably, then the name.
func makeSegment(dev disk.FS, spare string, h segmentHeader) (*segment, error) {
	block := disk.AlignedBuf(blockBytes)
	defer disk.FreeBuf(block)
	h.encode(block)
	f, err := dev.Open(spare, disk.Direct)
	if err != nil {
		return nil, err
	}
	err = f.WriteAt(block, 0)
	if e := f.Close(); err == nil {
		err = e
	}
	name := segmentName(h.number)
	if err == nil {
		err = dev.Rename(spare, name)
	}
	if err != nil {
		return nil, err
	}
	// Opened again so that its errors carry the right name.
	if f, err = dev.Open(name, disk.Direct); err != nil {
		return nil, err
	}
	return &segment{name: name, number: h.number, sizeBytes: h.sizeBytes, file: f, off: blockBytes}, nil
}
