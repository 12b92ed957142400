package engine

import (
	"errors"
	"fmt"
	"io/fs"

	"quire/disk"
	"quire/engine/auth"
	"quire/engine/etcdfile"
)

// ErrNotEmpty says that Import was given a store that has something in it.
var ErrNotEmpty = errors.New("engine: the store is not empty")

// Imported tells what Import has put into the store.
type Imported struct {
	Versions, Leases          int
	Revision, CompactRevision int64
}

// importMark is a file in the store's directory from the begin of an import to
// its end. It comes before anything else and goes when everything else is
// durable; a store that has it is not opened. Without it, an import that was cut
// short would look like a store that is empty, or that lacks the end of the
// history.
const importMark = "importing"

// ErrHalfImported says that the store's directory is left of an import, or a
// restore, that was interrupted.
var ErrHalfImported = errors.New("engine: a restore or import into this directory was interrupted; remove the directory and repeat it")

// markImport puts the mark into an empty directory.
func markImport(fsys disk.FS) error {
	if err := checkMark(fsys); err != nil {
		return err
	}
	files, err := fsys.List("")
	if err != nil {
		return err
	}
	if len(files) > 0 {
		return ErrNotEmpty
	}
	f, err := fsys.Create(importMark, 0)
	if err == nil {
		err = f.Close()
	}
	return err
}

// checkMark refuses a directory with the mark.
func checkMark(fsys disk.FS) error {
	f, err := fsys.Open(importMark, disk.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(ErrHalfImported, f.Close())
	}
	return err
}

// FinishImport ends what Import has begun: from here on a server opens the store.
func FinishImport(fsys disk.FS) error { return fsys.Remove(importMark) }

// Import fills the empty directory fsys with the versions of an etcd database and
// the state st, which the caller has read from it and may have changed. The
// store belongs to opts.MemberID and ClusterID; no entry of a log counts as
// applied to it, so a new log begins with it. Everything is durable when Import
// returns, but only Options.Importing opens the store before FinishImport.
//
// raise, if above 0, does what etcdutl's --bump-revision and --mark-compacted do:
// the revision goes up by so much, to a record that nobody can read, and all
// before it is compacted.
func Import(fsys disk.FS, opts Options, db *etcdfile.File, st *etcdfile.State, raise int64) (in Imported, err error) {
	if err := markImport(fsys); err != nil {
		return in, err
	}
	opts.Members, opts.Importing = nil, true
	e, err := Open(fsys, opts)
	if err != nil {
		return in, err
	}
	if in, err = e.fill(db, st, raise); err == nil {
		err = e.beginRolling(db, &in)
	}
	if err == nil {
		err = e.Checkpoint()
	}
	return in, errors.Join(err, e.Abandon())
}

// fill appends the records to the page store. The index is left empty: the next
// Open builds it from the store, in bulk.
func (e *Engine) fill(db *etcdfile.File, st *etcdfile.State, raise int64) (in Imported, err error) {
	e.writer.Lock()
	defer e.writer.Unlock()
	last := int64(0)
	err = db.Versions(func(v *etcdfile.Version, kv *etcdfile.KeyValue) error {
		last = v.Main
		in.Versions++
		return e.fillOne(importedRecord(v, kv))
	})
	if err != nil {
		return in, err
	}
	in.CompactRevision = st.CompactRevision()
	in.Revision = max(last, in.CompactRevision, 1)
	if raise > 0 {
		in.Revision = max(last, in.CompactRevision) + raise
		in.CompactRevision = in.Revision
		in.Versions++
		if err := e.fillOne(importedRecord(&etcdfile.Version{Main: in.Revision}, &etcdfile.KeyValue{})); err != nil {
			return in, err
		}
	}
	e.ap.rev = in.Revision
	e.ap.k.visible.Store(in.Revision)
	e.ap.k.compactRev.Store(in.CompactRevision)
	in.Leases = len(st.Leases)
	for _, l := range st.Leases {
		e.lessor.restore(l.ID, l.TTL, l.RemainingTTL)
	}
	for _, a := range st.Alarms {
		e.alarms.set(a.MemberID, a.Alarm)
	}
	for _, m := range st.Members {
		e.cluster.restore(m)
	}
	for _, id := range st.Removed {
		e.cluster.restoreRemoved(id)
	}
	e.cluster.setVersion(st.ClusterVersion)
	if st.Downgrade.Enabled {
		e.cluster.setDowngrade(st.Downgrade.TargetVersion)
	}
	e.auth = auth.NewStore(&AuthState{Enabled: st.AuthEnabled, Revision: max(st.AuthRevision, 1), Users: st.Users, Roles: st.Roles})
	return in, nil
}

// beginRolling starts the rolling hash. HashKV does not depend on how much of
// what compaction made superfluous etcd had removed.
func (e *Engine) beginRolling(db *etcdfile.File, in *Imported) error {
	h, err := db.HashKV()
	if err != nil {
		return err
	}
	e.writer.Lock()
	e.ap.roll.begin(h.Hash, in.Revision, in.CompactRevision)
	e.writer.Unlock()
	return nil
}

func (e *Engine) fillOne(kv keyValue) error {
	e.ap.rec = appendRecord(e.ap.rec[:0], &kv)
	if _, err := e.ap.k.store.Append(e.ap.rec); err != nil {
		return fmt.Errorf("engine: page store: %w", err)
	}
	return nil
}

// importedRecord is the record of a version. A raised revision becomes the first
// version of the key of no length, which no request can name; hashes and exports
// give it back as etcd has it (see etcdKV).
func importedRecord(v *etcdfile.Version, kv *etcdfile.KeyValue) keyValue {
	r := keyValue{key: kv.Key, mod: v.Main, sub: v.Sub, tombstone: v.Tombstone}
	switch {
	case v.IsRaised():
		r.create, r.version = v.Main, 1
	case !v.Tombstone:
		r.value, r.create, r.version, r.lease = kv.Value, kv.Create, kv.Version, kv.Lease
	}
	return r
}

// Rebase makes the store one to which no entry of a log was applied: a new log
// begins with it. Import needs it after applying entries of etcd's log: how many
// of them a member's database lacked is not to make a difference, so the rolling
// hash begins anew as well.
func (e *Engine) Rebase() error {
	hash, compactRev, rev, err := e.HashKV(0)
	if err != nil {
		return err
	}
	e.writer.Lock()
	e.ap.roll.begin(hash, rev, compactRev)
	e.applied.Store(0)
	e.term.Store(0)
	e.ap.index, e.ap.term = 0, 0
	e.writer.Unlock()
	return e.Checkpoint()
}
