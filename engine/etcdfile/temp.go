package etcdfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

const (
	tempPrefix = "export-"
	tempSuffix = ".db"
)

// Temp is a finished database without a name: it is gone when it is closed, or
// when the process ends.
type Temp struct {
	*os.File
	SizeBytes int64
}

// CreateTemp begins a database in a file of its own in dir; FinishTemp ends it.
func CreateTemp(dir string) (*Writer, error) {
	f, err := os.CreateTemp(dir, tempPrefix+"*"+tempSuffix)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	return create(f.Name())
}

// FinishTemp is Finish, and takes the file's name away.
func (w *Writer) FinishTemp(s *State) (*Temp, error) {
	size, err := w.Finish(s)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(w.path)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(w.path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Temp{f, size}, nil
}

// CleanDir makes dir, or removes from it what a crash left of CreateTemp.
func CleanDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), tempPrefix) && strings.HasSuffix(e.Name(), tempSuffix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
