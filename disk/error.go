package disk

import (
	"errors"
	"fmt"
)

var (
	// ErrQueueFull is returned by Queue.Submit when depth writes are in flight.
	ErrQueueFull = errors.New("queue is full")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("already closed")
	// ErrLocked is wrapped by LockedError.
	ErrLocked = errors.New("directory is in use")
	// ErrMisaligned means that address, length or offset of direct I/O is no
	// multiple of Align.
	ErrMisaligned = errors.New("misaligned direct I/O")
	// ErrBadName means that a name is not a clean relative slash path.
	ErrBadName = errors.New("invalid file name")
)

// Error is what every failing operation of this package returns.
type Error struct {
	Op   string // "open", "write", "sync", …
	Name string // relative to the FS
	Off  int64  // offset in bytes, 0 where none applies
	Err  error
}

func (e *Error) Error() string {
	if e.Off != 0 {
		return fmt.Sprintf("disk: %s %s at offset %d: %v", e.Op, e.Name, e.Off, e.Err)
	}
	return fmt.Sprintf("disk: %s %s: %v", e.Op, e.Name, e.Err)
}

// Unwrap gives the errno or the sentinel.
func (e *Error) Unwrap() error { return e.Err }

// LockedError tells which process has locked a directory. It unwraps to ErrLocked.
type LockedError struct {
	PID int // 0 when the lock file does not tell
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return "directory is in use by another process"
	}
	return fmt.Sprintf("directory is in use by process %d", e.PID)
}

// Unwrap makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Unwrap() error { return ErrLocked }

// wrap returns err as an *Error, nil for nil.
func wrap(op, name string, off int64, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Name: name, Off: off, Err: err}
}
