package raft

import (
	"math/rand/v2"

	"quire/disk"
	"quire/wal"
)

// simLog is a member's log and the disk under it.
type simLog interface {
	open(replay func(Pos, []byte) error) (Log, Found, error)
	// finish makes progress possible: it reports whether Wait would return.
	finish() bool
	// cut returns what a power cut leaves.
	cut(rng *rand.Rand) simLog
	empty() bool // no record was ever durable
}

func (l *fakeLog) finish() bool {
	l.sync()
	return l.durable > l.told
}

func (l *fakeLog) cut(rng *rand.Rand) simLog { return l.crash(rng.IntN(4)) }

func (l *fakeLog) empty() bool { return len(l.recs) == 0 }

// diskLog is the real log on the crashable disk.
type diskLog struct {
	mem  *disk.Mem
	opts wal.Options
	log  *wal.Log
	recs int
}

func newDiskLog(id uint64, rng *rand.Rand) *diskLog {
	batch := (1 + rng.IntN(3)) * 4096
	return &diskLog{mem: disk.NewMem(rng.Uint64()), opts: wal.Options{
		MaxBatchBytes: batch, SegmentBytes: int64(batch + (1+rng.IntN(8))*4096),
		QueueDepth: 1 + rng.IntN(4), Manual: true, LogID: id,
	}}
}

func (l *diskLog) open(replay func(Pos, []byte) error) (Log, Found, error) {
	log, rec, err := wal.Open(l.mem, l.opts, replay)
	if err != nil {
		return nil, Found{}, err
	}
	l.log, l.recs = log, rec.Records
	return log, Found{rec.Doubtful, rec.DoubtPos}, nil
}

func (l *diskLog) finish() bool { return l.log.Maintain() == nil && l.log.InFlight() > 0 }

func (l *diskLog) cut(rng *rand.Rand) simLog {
	c := disk.CrashChoice{Seed: rng.Uint64(), Fate: disk.Fate(rng.IntN(4)), Strict: rng.IntN(2) == 0, Process: rng.IntN(6) == 0}
	next := &diskLog{mem: l.mem.Crash(c), opts: l.opts}
	log, rec, err := wal.Open(next.mem.Clone(1), l.opts, nil)
	if err == nil {
		next.recs = rec.Records
		_ = log.Close()
	}
	return next
}

func (l *diskLog) empty() bool { return l.recs == 0 }
