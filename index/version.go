package index

import "errors"

// Loc is where a version's record lies, opaque to this package. Its upper
// eight bits must be zero: the directory packs other bits there.
type Loc uint64

// Limits of what a record can hold. They are asserted by Put and Loader.Add;
// at a million revisions a second the first one lasts two thousand years.
const (
	maxRevision = 1<<56 - 1
	maxLoc      = 1<<56 - 1
	maxVer      = 1<<48 - 1
	maxKeyBytes = 1<<32 - 1
)

// Newest, given as a revision to a read, means the newest version of every
// key, whether its revision has been published to readers or not.
const Newest int64 = 0

// ErrCompacted says that a revision below the compact revision was asked for.
var ErrCompacted = errors.New("index: revision has been compacted")

// Version is one modification of one key: what etcd calls a revision of it.
type Version struct {
	Main      int64 // mod revision, > 0
	Create    int64 // create revision; 0 in a tombstone
	Ver       int64 // 1 for the put that created the key; 0 in a tombstone
	Loc       Loc   // location of the record
	Sub       int32 // position within the revision, from 0
	Tombstone bool  // the key was deleted at Main
	HasLease  bool  // the put named a lease
}

// Hit is one live key found by a Scanner.
type Hit struct {
	Version
	Key []byte // nil unless Query.Keys; else valid until the next Next or Reset of the scanner
}

// Event is one entry of the revision log.
type Event struct {
	Main      int64
	Loc       Loc   // record of the version the event made
	PrevLoc   Loc   // record of the version it replaced; 0 if that was no live one or is compacted
	Sub       int32 // position within the revision
	Tombstone bool
	Created   bool // a put of a key that was absent
	HasLease  bool
}

// VersionRef is one retained version as AllVersions reports it.
type VersionRef struct {
	Main      int64
	Loc       Loc
	Sub       int32
	Tombstone bool
}
