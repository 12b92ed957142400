package pagestore

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrNoSpace means that the disk is full: nothing is lost and everything
	// stays readable, but it cannot be made durable now. It wraps the cause.
	ErrNoSpace = errors.New("pagestore: no space on the disk")
	// ErrGone means that the segment of a Ref has been reclaimed. Whoever
	// holds no Pin looks the record's new place up and reads again.
	ErrGone = errors.New("pagestore: the record's segment has been reclaimed")
	// ErrBadRef means a Ref that no Append returned: a bug of the owner.
	ErrBadRef = errors.New("pagestore: no record at this reference")
	// ErrTooLarge refuses a record over Options.MaxRecordBytes.
	ErrTooLarge = errors.New("pagestore: record too large")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("pagestore: closed")
	// ErrIDsExhausted means that 2^26 segments exist at once.
	ErrIDsExhausted = errors.New("pagestore: no free segment id")
)

// CorruptError reports bytes on the disk that are not what was written there.
// The bytes themselves are never returned.
type CorruptError struct {
	File   string
	Off    int64 // byte offset of the damaged page or structure
	Reason string
	Want   uint64 // what was expected: a checksum, size, offset or count, as Reason says
	Got    uint64
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("pagestore: %s is corrupt at offset %d: %s (want %#x, got %#x)",
		e.File, e.Off, e.Reason, e.Want, e.Got)
}

// isDamage says whether err is of bytes that are not what was written.
func isDamage(err error) bool {
	var damaged *CorruptError
	return errors.As(err, &damaged)
}

// VersionError refuses a file that another version of the format wrote.
type VersionError struct {
	File    string
	Version int // found
	Reads   int // the version that this build reads
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("pagestore: %s has format version %d; this build reads version %d",
		e.File, e.Version, e.Reads)
}

// isNoSpace says whether err is the one kind of write error after which the
// store knows what is on the disk and may try again.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func noSpace(cause error) error { return fmt.Errorf("%w: %w", ErrNoSpace, cause) }
