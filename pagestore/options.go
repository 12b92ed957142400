package pagestore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Options are the settings of a Store. A zero field means its default.
type Options struct {
	// SegmentBytes is the size at which a segment is full. Smaller ones are
	// reclaimed sooner and cost more files. 16 KiB to 256 MiB, default 64 MiB.
	SegmentBytes int64
	// PageBytes is the largest page that holds several records: the unit of
	// a cold read and of the checksum. 4, 8, 12 or 16 KiB, default 16 KiB.
	PageBytes int
	// CacheBytes bounds the memory for pages that are also on the disk.
	// Default 64 MiB.
	CacheBytes int64
	// DirtyBytes bounds the memory for pages not yet written behind; past it
	// Append waits for the disk. Default 32 MiB.
	DirtyBytes int64
	// NoSpaceBytes is how much more memory Append may use while the disk is
	// full, before it returns ErrNoSpace: room for what was in flight when
	// the owner learned of it. Default 64 MiB.
	NoSpaceBytes int64
	// FlushBytes is the size of one write behind. Default 1 MiB.
	FlushBytes int64
	// MaxRecordBytes refuses larger records. Default 1 GiB, which is also
	// the most.
	MaxRecordBytes int
	// Hint appends to dst what the owner needs to know of rec at start, and
	// returns the result. It must be a pure function of rec; it is called by
	// several goroutines. Footers keep what it returned when they were
	// written, so that a later version of the owner must still understand it.
	// Without it there are no hints, only locations.
	Hint func(dst, rec []byte) []byte
	// OnFatal is called once, after an error with which nothing more can be
	// made durable: the process must stop. It must not block or call the
	// store: the write behind, or a Commit, waits for it.
	OnFatal func(error)
	// OnNoSpace is called with an error when the disk is found full and with
	// nil when it takes writes again. It must not block or call the store.
	OnNoSpace func(error)
	// OnDamage is told of bytes that were found not to be what was written, once for
	// each time. It must not block or call the store. May be nil.
	OnDamage func(error)
	// OnCommit is told how long the parts of a successful Commit took. It must not
	// block or call the store. May be nil.
	OnCommit func(CommitTimes)
	// Inline starts no goroutine: the write behind happens inside Append and
	// Commit. For simulations that need the same disk operations each time.
	Inline bool
	// Nonce replaces the random source of segment epochs; for simulations.
	Nonce func() uint64

	// inlineState is up to how many bytes of state lie in the manifest.
	inlineState int
}

// CommitTimes are the parts of a Commit, one after the other.
type CommitTimes struct {
	Flush time.Duration // waiting for the write behind
	Sync  time.Duration // footers, and making the segments durable
	State time.Duration // writing the state
	Roots time.Duration // writing the manifest and making it durable
}

const (
	defaultSegmentBytes = 64 << 20
	defaultPageBytes    = 16 << 10
	defaultCacheBytes   = 64 << 20
	defaultDirtyBytes   = 32 << 20
	defaultNoSpaceBytes = 64 << 20
	defaultFlushBytes   = 1 << 20
	defaultInlineState  = 32 << 10

	minSegmentBytes  = 16 << 10
	maxSegmentBytes  = (int64(maxPageNo) + 1) * unitBytes
	recordBytesLimit = 1 << 30
)

// withDefaults returns o with every zero field set.
func (o Options) withDefaults() Options {
	set := func(field *int64, value int64) {
		if *field == 0 {
			*field = value
		}
	}
	set(&o.SegmentBytes, defaultSegmentBytes)
	set(&o.CacheBytes, defaultCacheBytes)
	set(&o.DirtyBytes, defaultDirtyBytes)
	set(&o.NoSpaceBytes, defaultNoSpaceBytes)
	set(&o.FlushBytes, defaultFlushBytes)
	if o.PageBytes == 0 {
		o.PageBytes = defaultPageBytes
	}
	if o.inlineState == 0 {
		o.inlineState = defaultInlineState
	}
	if o.MaxRecordBytes == 0 {
		o.MaxRecordBytes = recordBytesLimit
	}
	if o.Hint == nil {
		o.Hint = func(dst, _ []byte) []byte { return dst }
	}
	if o.OnFatal == nil {
		o.OnFatal = func(error) {}
	}
	if o.OnNoSpace == nil {
		o.OnNoSpace = func(error) {}
	}
	if o.Nonce == nil {
		o.Nonce = randomNonce
	}
	return o
}

// Validate reports every setting that is out of its range, all at once. Zero
// fields are fine.
func (o Options) Validate() error {
	o = o.withDefaults()
	var faults []error
	within := func(name string, value, low, high int64) {
		if value < low || value > high {
			faults = append(faults, fmt.Errorf("pagestore: %s is %d; it must be from %d to %d", name, value, low, high))
		}
	}
	within("SegmentBytes", o.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	within("PageBytes", int64(o.PageBytes), unitBytes, maxPageBytes)
	within("CacheBytes", o.CacheBytes, 0, 1<<50)
	within("DirtyBytes", o.DirtyBytes, unitBytes, 1<<40)
	within("NoSpaceBytes", o.NoSpaceBytes, 0, 1<<40)
	within("FlushBytes", o.FlushBytes, unitBytes, 1<<30)
	within("MaxRecordBytes", int64(o.MaxRecordBytes), 1, recordBytesLimit)
	if o.PageBytes%unitBytes != 0 {
		faults = append(faults, fmt.Errorf("pagestore: PageBytes is %d; it must be a multiple of %d", o.PageBytes, unitBytes))
	}
	return errors.Join(faults...)
}

func randomNonce() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails: documented to crash the program instead
	return binary.LittleEndian.Uint64(b[:])
}
