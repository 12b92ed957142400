package etcdfile

import (
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

// Writer makes a database: versions in order of revision, then the state. It is
// for one goroutine. Nothing is synced; whoever keeps the file syncs it.
type Writer struct {
	path string
	db   *bolt.DB
	tx   *bolt.Tx
	keys *bolt.Bucket

	last    Version
	begun   bool
	pending int    // bytes put since the last commit
	room    []byte // what keys and values of this transaction are copied to
}

const (
	// batchBytes of keys and values go into one transaction of bbolt, which
	// holds them in memory. A larger one makes the file no faster to write, and a
	// commit keeps the processor for longer: 256 KiB cost about a millisecond.
	batchBytes = 256 << 10
	// elementCost is what an element takes in bbolt's memory beside its bytes.
	elementCost = 64
	// fillPercent packs pages: nothing is ever put between two versions.
	fillPercent = 0.95
)

// Create begins a database in a new file.
func Create(path string) (*Writer, error) {
	// O_EXCL: bbolt would go on in a file that is there.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return create(path)
}

// create begins a database in an empty file.
func create(path string) (*Writer, error) {
	// The freelist is found by a scan, as in etcd's own files.
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoGrowSync: true, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	w := &Writer{path: path, db: db}
	if err := w.begin(); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

func (w *Writer) begin() (err error) {
	if w.tx, err = w.db.Begin(true); err != nil {
		return err
	}
	w.pending, w.room = 0, w.room[:0]
	w.keys, err = w.bucket(bucketKey)
	return err
}

func (w *Writer) bucket(name string) (*bolt.Bucket, error) {
	b, err := w.tx.CreateBucketIfNotExists([]byte(name))
	if err == nil {
		b.FillPercent = fillPercent
	}
	return b, err
}

// commit ends the transaction and begins another one.
func (w *Writer) commit() error {
	tx := w.tx
	w.tx = nil
	if err := tx.Commit(); err != nil {
		return err
	}
	return w.begin()
}

// keep copies b to memory that stays untouched until the next commit.
func (w *Writer) keep(b []byte) []byte {
	if cap(w.room)-len(w.room) < len(b) {
		w.room = make([]byte, 0, max(batchBytes, len(b))) // the old one lives on in the transaction
	}
	n := len(w.room)
	w.room = append(w.room, b...)
	return w.room[n:len(w.room):len(w.room)]
}

func (w *Writer) put(b *bolt.Bucket, key, value []byte) error {
	w.pending += len(key) + len(value) + elementCost
	return b.Put(key, w.keep(value))
}

// Put adds a version. It may be reused after the call.
func (w *Writer) Put(v *Version) error {
	if w.begun && !v.after(&w.last) {
		return fmt.Errorf("etcdfile: revision %d.%d follows %d.%d", v.Main, v.Sub, w.last.Main, w.last.Sub)
	}
	w.last, w.begun = Version{Main: v.Main, Sub: v.Sub}, true
	var key [markedBytes]byte
	if err := w.put(w.keys, v.AppendKey(key[:0]), v.KV); err != nil {
		return err
	}
	if w.pending < batchBytes {
		return nil
	}
	return w.commit()
}

// Finish adds the state, ends the file and returns its length.
func (w *Writer) Finish(s *State) (sizeBytes int64, err error) {
	buckets, err := s.buckets()
	if err != nil {
		return 0, err
	}
	for _, name := range []string{bucketAlarm, bucketAuth, bucketRoles, bucketUsers, bucketCluster, bucketMembers, bucketMembersRemoved, bucketMeta} {
		b, err := w.bucket(name)
		if err != nil {
			return 0, err
		}
		for _, p := range buckets[name] {
			if err := w.put(b, p.key, p.value); err != nil {
				return 0, err
			}
		}
	}
	if err := w.putLeases(s.Leases); err != nil {
		return 0, err
	}
	return w.end()
}

func (w *Writer) putLeases(leases []Lease) error {
	b, err := w.bucket(bucketLease)
	for i := range leases {
		if err == nil {
			p := leases[i].encode()
			err = w.put(b, p.key, p.value)
		}
		if err == nil && w.pending >= batchBytes {
			if err = w.commit(); err == nil {
				b, err = w.bucket(bucketLease)
			}
		}
		if err != nil {
			return err
		}
	}
	return err
}

// end commits, and cuts off what bbolt has allocated ahead.
func (w *Writer) end() (sizeBytes int64, err error) {
	tx := w.tx
	w.tx = nil
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	err = w.db.View(func(tx *bolt.Tx) error {
		sizeBytes = tx.Size()
		return nil
	})
	if err = errors.Join(err, w.db.Close()); err != nil {
		return 0, err
	}
	w.db = nil
	return sizeBytes, os.Truncate(w.path, sizeBytes)
}

// Abort gives up and removes the file.
func (w *Writer) Abort() error {
	var errs []error
	if w.tx != nil {
		errs = append(errs, w.tx.Rollback())
	}
	if w.db != nil {
		errs = append(errs, w.db.Close())
	}
	w.tx, w.db = nil, nil
	if err := os.Remove(w.path); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
