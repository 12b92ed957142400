package etcdfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// File is an etcd database, or a snapshot, opened for reading.
type File struct {
	name    string
	closer  io.Closer
	bolt    *boltFile
	buckets map[string]bucket
}

// maxStorageMinor is the newest storage version that this package knows: 3.7.
const maxStorageMinor = 7

// Open opens a database that nobody writes to. ErrLocked if another process has
// it; os.ErrNotExist if it is missing. Close releases it.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	// etcd holds an exclusive lock on its database for as long as it runs.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	db, err := Read(f, path, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	db.closer = f
	return db, nil
}

// Read reads a database of which sizeBytes are there, a checksum behind it not
// counted; name is for messages.
func Read(r io.ReaderAt, name string, sizeBytes int64) (*File, error) {
	bolt, err := openBolt(r, name, sizeBytes)
	if err != nil {
		return nil, err
	}
	f := &File{name: name, bolt: bolt, buckets: map[string]bucket{}}
	err = bolt.each(bucket{root: bolt.root}, func(off int64, key, value []byte, isBucket bool) error {
		if !isBucket {
			return bolt.corrupt(off, "an element %q beside the buckets", key)
		}
		b, err := bolt.parseBucket(off, value)
		f.buckets[string(key)] = b
		return err
	})
	if err == nil {
		err = f.checkBuckets()
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// checkBuckets refuses what would be dropped in silence, and what is no etcd
// database at all.
func (f *File) checkBuckets() error {
	for name := range f.buckets {
		switch name {
		case bucketAlarm, bucketAuth, bucketRoles, bucketUsers, bucketCluster, bucketKey, bucketLease,
			bucketMembers, bucketMembersRemoved, bucketMeta:
		default:
			return &VersionError{File: f.name, What: fmt.Sprintf("bucket %q", name)}
		}
	}
	for _, name := range []string{bucketKey, bucketMeta} {
		if _, ok := f.buckets[name]; !ok {
			return f.bolt.corrupt(-1, "there is no bucket %q", name)
		}
	}
	return nil
}

// Close releases the file.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// State reads everything but the versions of keys.
func (f *File) State() (*State, error) {
	s := &State{ScheduledCompact: -1, FinishedCompact: -1}
	for name, b := range f.buckets {
		if name == bucketKey {
			continue
		}
		err := f.bolt.each(b, func(off int64, key, value []byte, isBucket bool) error {
			if isBucket {
				return f.bolt.corrupt(off, "bucket %q has a bucket %q", name, key)
			}
			err := s.take(name, key, value)
			switch {
			case errors.Is(err, errUnknown):
				return &VersionError{File: f.name, What: fmt.Sprintf("%q in bucket %q", key, name)}
			case err != nil:
				return f.bolt.corrupt(off, "%q in bucket %q: %v", key, name, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s, f.checkState(s)
}

func (f *File) checkState(s *State) error {
	if s.StorageVersion != "" {
		var major, minor, patch int
		if n, _ := fmt.Sscanf(s.StorageVersion, "%d.%d.%d", &major, &minor, &patch); n != 3 {
			return f.bolt.corrupt(-1, "storage version %q", s.StorageVersion)
		}
		if major != 3 || minor > maxStorageMinor {
			return &VersionError{File: f.name, What: "storage version " + s.StorageVersion}
		}
	}
	if len(s.ConfState.VotersOutgoing) > 0 {
		return &VersionError{File: f.name, What: "a joint membership"}
	}
	if s.FinishedCompact > s.ScheduledCompact {
		return f.bolt.corrupt(-1, "compaction finished to revision %d, scheduled to %d", s.FinishedCompact, s.ScheduledCompact)
	}
	return nil
}

// Versions calls fn for each version in order of revision. It is valid during
// the call.
func (f *File) Versions(fn func(v *Version, kv *KeyValue) error) error {
	var last, v Version
	begun := false
	return f.bolt.each(f.buckets[bucketKey], func(off int64, key, value []byte, isBucket bool) error {
		var kv KeyValue
		var err error
		if isBucket {
			err = errors.New("a bucket")
		} else if v, err = parseRevision(key); err == nil {
			v.KV = value
			kv, err = v.Decode()
		}
		if err == nil && begun && !v.after(&last) {
			err = fmt.Errorf("revision %d.%d follows %d.%d", v.Main, v.Sub, last.Main, last.Sub)
		}
		if err != nil {
			return f.bolt.corrupt(off, "bucket %q: %v", bucketKey, err)
		}
		last, begun = Version{Main: v.Main, Sub: v.Sub}, true
		return fn(&v, &kv)
	})
}
