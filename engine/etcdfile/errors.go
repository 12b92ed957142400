package etcdfile

import (
	"errors"
	"fmt"
)

// ErrLocked says that another process, most likely a running etcd, has the file.
var ErrLocked = errors.New("the file is locked by another process; stop the etcd that uses it")

// CorruptError tells what is wrong with a file and where.
type CorruptError struct {
	File string
	Off  int64  // of the page or record; -1 if it is not one place
	What string // with the values found and expected
}

func (e *CorruptError) Error() string {
	if e.Off < 0 {
		return fmt.Sprintf("etcd file %s is corrupt: %s", e.File, e.What)
	}
	return fmt.Sprintf("etcd file %s is corrupt at offset %d: %s", e.File, e.Off, e.What)
}

// VersionError says that a file has something that this program does not know.
type VersionError struct {
	File string
	What string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("etcd file %s has something that this program does not read: %s", e.File, e.What)
}
