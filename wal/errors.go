package wal

import (
	"errors"
	"fmt"
)

var (
	// ErrCorrupt is what a *CorruptError unwraps to.
	ErrCorrupt = errors.New("log is corrupt")
	// ErrMissingSegment is what a *MissingError unwraps to.
	ErrMissingSegment = errors.New("log segment is missing")
	// ErrVersion is what a *VersionError unwraps to.
	ErrVersion = errors.New("log has a format version that is not known")
	// ErrNoLog is returned by Open with Options.MustExist.
	ErrNoLog = errors.New("there is no log")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("log is closed")
	// ErrRecordTooLarge is returned by Append; the log stays usable.
	ErrRecordTooLarge = errors.New("record is too large for the log")
)

// CorruptError tells where a log was found damaged. Records before that place
// are right and have been given to replay.
type CorruptError struct {
	File   string
	Off    int64  // in bytes
	What   string // which check failed
	Want   uint64
	Got    uint64
	Reason string // why it is damage and no torn tail
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("wal: %s is corrupt at offset %d: %s is %#x, want %#x: %s", e.File, e.Off, e.What, e.Got, e.Want, e.Reason)
}

// Unwrap makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// MissingError tells that segments between two others are not there.
type MissingError struct {
	File  string // the first one that is missing
	Count uint64
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("wal: %s is missing (%d segments in all) although the log goes on after it", e.File, e.Count)
}

// Unwrap makes errors.Is(err, ErrMissingSegment) true.
func (e *MissingError) Unwrap() error { return ErrMissingSegment }

// VersionError tells that a segment was written by another version.
type VersionError struct {
	File      string
	Got, Want uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("wal: %s has format version %d, this program knows %d", e.File, e.Got, e.Want)
}

// Unwrap makes errors.Is(err, ErrVersion) true.
func (e *VersionError) Unwrap() error { return ErrVersion }

// WriteError is the final error of a log: nobody knows what is on the disk.
// The process must stop; the next Open finds out.
type WriteError struct {
	File string
	Off  int64
	Seq  Seq   // the batch, 0 when it was no batch
	Err  error // unwraps to the errno
}

func (e *WriteError) Error() string {
	if e.Seq == 0 {
		return fmt.Sprintf("wal: %s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("wal: write of batch %d to %s at offset %d: %v", e.Seq, e.File, e.Off, e.Err)
}

// Unwrap gives the disk's error.
func (e *WriteError) Unwrap() error { return e.Err }
