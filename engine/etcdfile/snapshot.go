package etcdfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
)

// SumBytes is the length of the checksum behind a snapshot.
const SumBytes = sha256.Size

// hasSum tells whether a file of this length is a snapshot with its checksum.
func hasSum(sizeBytes int64) bool { return sizeBytes%512 == SumBytes }

// OpenSnapshot opens a snapshot. Unless skipCheck is set, its checksum is
// verified and must be there: a database that was copied has none.
func OpenSnapshot(path string, skipCheck bool) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	db, err := readSnapshot(f, path, skipCheck)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	db.closer = f
	return db, nil
}

func readSnapshot(f *os.File, path string, skipCheck bool) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	if hasSum(size) {
		size -= SumBytes
		if !skipCheck {
			err = checkSum(f, size)
		}
	} else if !skipCheck {
		err = errors.New("snapshot missing hash but --skip-hash-check=false")
	}
	if err != nil {
		return nil, err
	}
	return Read(f, path, size)
}

func checkSum(f io.ReaderAt, sizeBytes int64) error {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, sizeBytes)); err != nil {
		return err
	}
	want := make([]byte, SumBytes)
	if _, err := f.ReadAt(want, sizeBytes); err != nil {
		return err
	}
	if got := h.Sum(nil); !bytes.Equal(got, want) {
		return fmt.Errorf("expected sha256 %v, got %v", want, got)
	}
	return nil
}
