package wal

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"

	"quire/disk"
)

// Open recovers the log in dev, or makes one, and calls replay (if not nil) for
// each record in order. The record is valid during the call. An error of replay
// ends Open and is returned as it is.
//
// Errors that tell about the log: *CorruptError, *MissingError, *VersionError,
// ErrNoLog. After one of them replay may have been given the records before the
// place; nothing on the disk has been changed.
func Open(dev Device, opts Options, replay func(pos Pos, rec []byte) error) (*Log, Recovery, error) {
	opts = opts.withDefaults()
	if err := opts.Validate(); err != nil {
		return nil, Recovery{}, fmt.Errorf("wal: options: %w", err)
	}
	r, err := newReader(dev, visitor{record: replay})
	if err != nil {
		return nil, Recovery{}, named(err)
	}
	r.cutDamaged = opts.CutDamaged
	fresh := len(r.segs) == 0
	if fresh && opts.MustExist {
		return nil, Recovery{}, ErrNoLog
	}
	end, off, err := r.run()
	if err != nil {
		return nil, r.rec, named(err)
	}
	l := newLog(dev, opts)
	err = l.adopt(r, end, off)
	if err == nil && fresh {
		err = l.makeFirst()
	}
	if err == nil {
		err = l.begin(r.cutNow)
	}
	if err != nil {
		l.abandon()
		return nil, r.rec, named(err)
	}
	rec := r.rec
	rec.Fresh, rec.Incarnation = fresh, l.incarnation
	return l, rec, nil
}

// named puts the package's name in front of errors that do not have it.
func named(err error) error {
	if strings.HasPrefix(err.Error(), "wal: ") {
		return err
	}
	return fmt.Errorf("wal: %w", err)
}

func newLog(dev Device, opts Options) *Log {
	most := opts.MaxBufferBytes / opts.MaxBatchBytes
	l := &Log{
		dev:    dev,
		opts:   opts,
		kick:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
		sealed: make([]*batch, 0, most),
		flying: make([]*batch, 0, opts.QueueDepth),
		slots:  make([]*batch, opts.QueueDepth),
		free:   make([]*batch, 0, most),
		done:   make([]disk.Completion, opts.QueueDepth),
	}
	l.cond = sync.NewCond(&l.mu)
	return l
}

// adopt takes over what the reader found, makes sure that it is durable, and
// puts the files of the directory in order.
func (l *Log) adopt(r *reader, end int, off int64) error {
	c := &r.chain
	l.logID, l.lastHash, l.lastSeq, l.incarnation = c.logID, c.hash, c.seq, c.incarnation+1
	l.appended, l.durablePos, l.told, l.durableSeq = c.pos, c.pos, c.pos, c.seq
	if len(r.segs) > 0 {
		l.segs, l.ahead = r.segs[:end+1:end+1], r.segs[end+1:]
		l.segs[end].off = off
	}
	for _, seg := range l.ahead {
		seg.off, seg.lastPos, seg.lastSeq, seg.durable = blockBytes, 0, 0, false
	}
	if err := r.harden(); err != nil {
		return err
	}
	if err := l.tidy(); err != nil {
		return err
	}
	return l.openFiles()
}

// harden writes the batches again of which nobody knows whether they are
// durable: they were read, but perhaps from a cache that a power cut empties, or
// whose write had failed. The bytes are the same, so a crash here does no harm.
func (r *reader) harden() error {
	for _, p := range r.unsure {
		if err := r.rewrite(p); err != nil {
			return err
		}
	}
	return nil
}

// rewrite reads the batch the way recovery did, since that is what was checked,
// and not from the device, which may not have it.
func (r *reader) rewrite(p place) error {
	in, err := r.fsys.Open(p.seg.name, disk.ReadOnly)
	if err != nil {
		return err
	}
	defer in.Close()
	buf := disk.AlignedBuf(int(p.size))
	defer disk.FreeBuf(buf)
	if _, err := in.ReadAt(buf, p.off); err != nil {
		return err
	}
	h, _ := decodeBatchHeader(buf)
	if h.hash != p.hash || h.size() != p.size || xxhash.Sum64(buf[8:h.hashed()]) != p.hash {
		return &CorruptError{File: p.seg.name, Off: p.off, What: "batch hash", Want: p.hash, Got: h.hash,
			Reason: "the disk gave other bytes when it was read again"}
	}
	out, err := r.fsys.Open(p.seg.name, disk.Direct)
	if err != nil {
		return err
	}
	defer out.Close()
	return out.WriteAt(buf, p.off)
}

// tidy removes files that were not finished, and finds the spares.
func (l *Log) tidy() error {
	infos, err := l.dev.List("")
	if err != nil {
		return err
	}
	for _, info := range infos {
		_, isSegment := parseName(info.Name, segmentSuffix)
		n, isSpare := parseName(info.Name, spareSuffix)
		switch {
		case strings.HasSuffix(info.Name, spareSuffix+tmpSuffix):
		case isSegment && info.SizeBytes == 0:
		case isSpare && (info.SizeBytes != l.opts.SegmentBytes || len(l.spares) > l.opts.SpareSegments):
		case isSpare:
			l.spares = append(l.spares, spare{name: info.Name, num: n})
			continue
		default:
			continue
		}
		if err := l.dev.Remove(info.Name); err != nil {
			return err
		}
	}
	return nil
}

// openFiles opens what will be written.
func (l *Log) openFiles() error {
	var err error
	if n := len(l.segs); n > 0 {
		seg := l.segs[n-1]
		if seg.file, err = l.dev.Open(seg.name, disk.Direct); err != nil {
			return err
		}
	}
	for _, seg := range l.ahead {
		if seg.file, err = l.dev.Open(seg.name, disk.Direct); err != nil {
			return err
		}
	}
	l.queue, err = l.dev.NewQueue(l.opts.QueueDepth)
	return err
}

// firstBytes bounds the size of segment 1: a new log should be ready at once, and
// filling takes time.
const firstBytes = 8 << 20

// makeFirst makes segment 1 of a new log.
func (l *Log) makeFirst() error {
	size := min(l.opts.SegmentBytes, max(firstBytes, int64(l.opts.MaxBatchBytes)+blockBytes))
	l.logID = l.opts.LogID
	for l.logID == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		l.logID = binary.LittleEndian.Uint64(b[:])
	}
	l.lastHash = genesis(l.logID)
	name := spareName(1)
	if n := len(l.spares); n > 0 {
		name = l.spares[n-1].name
		l.spares = l.spares[:n-1]
		size = l.opts.SegmentBytes
	} else {
		f, err := fillTmp(l.dev, name, size)
		if err == nil {
			err = finishSpare(l.dev, f, name)
		}
		if err != nil {
			return err
		}
	}
	seg, err := makeSegment(l.dev, name, segmentHeader{version: formatVersion, number: 1, logID: l.logID, sizeBytes: size})
	if err != nil {
		return err
	}
	l.segs = append(l.segs, seg)
	return nil
}

// begin starts the background and writes the open batch, which makes the
// incarnation durable before anything else is written in it. That something was
// cut off is told by the same batch: it takes the place of what was damaged.
func (l *Log) begin(cut bool) error {
	flags := uint16(flagOpen)
	if cut {
		flags |= flagCut
	}
	if !l.opts.Manual {
		l.idle.Add(1)
		go l.background()
	}
	l.mu.Lock()
	l.sealMarkLocked(flags)
	err := l.drainLocked()
	l.marked = true // nothing before the open batch is in doubt
	l.mu.Unlock()
	return err
}

// abandon releases a log that could not be opened; the error is known already.
func (l *Log) abandon() {
	if l.queue != nil {
		l.mu.Lock()
		l.failLocked(ErrClosed)
		l.mu.Unlock()
		_ = l.Close()
		return
	}
	_ = l.releaseLocked()
}
