package certs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

const (
	// fileBytes bounds a file: a revocation list of a large authority takes some
	// megabytes.
	fileBytes = 32 << 20
	// settleTime is how long after its last change a file may change again
	// without its times showing it; until then it is read again to be sure.
	settleTime = 2 * time.Second
)

// stamp tells a changed file from an unchanged one.
type stamp struct {
	dev, ino        uint64
	size            int64
	modified, inode int64 // nanoseconds
	err             string
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{err: err.Error()}
	}
	st := stamp{size: info.Size(), modified: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		st.dev, st.ino, st.inode = uint64(sys.Dev), sys.Ino, sys.Ctim.Nano()
	}
	return st
}

// settled reports whether the file cannot have changed unseen since it was
// stamped at now.
func (s stamp) settled(now time.Time) bool {
	return s.err == "" && now.Sub(time.Unix(0, max(s.modified, s.inode))) > settleTime
}

// content is a file as it was read.
type content struct {
	path  string
	bytes []byte
	sum   [sha256.Size]byte
}

func read(path string) (content, error) {
	f, err := os.Open(path)
	if err != nil {
		return content{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, fileBytes+1))
	if err != nil {
		return content{}, err
	}
	if len(b) > fileBytes {
		return content{}, fmt.Errorf("%s: more than %d bytes", path, fileBytes)
	}
	if len(b) == 0 {
		return content{}, fmt.Errorf("%s: %w", path, errEmptyFile)
	}
	return content{path: path, bytes: b, sum: sha256.Sum256(b)}, nil
}

var errEmptyFile = errors.New("file is empty")
