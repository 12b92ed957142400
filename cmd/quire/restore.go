package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"quire/disk"
	"quire/engine"
	"quire/engine/etcdfile"
)

const restoreUsage = `Usage: quire restore SNAPSHOT [flags]

Makes a data directory of a snapshot that etcdctl has saved from quire or from
etcd, or of etcd's database file (with --skip-hash-check). Keys, revisions,
leases, alarms, users and roles are taken over; the membership is the one that
the flags give. The flags are those of "etcdutl snapshot restore".
`

// restore is etcdutl's command for our data directory.
func restore(s *subrun) error {
	var to newCluster
	to.register(s.FlagSet)
	dataDir := s.String("data-dir", "", "directory to make; NAME.etcd if it is not given")
	walDir := s.String("wal-dir", "", "directory that the server will be given for its log; it must not exist")
	skip := s.Bool("skip-hash-check", false, "do without the checksum (required for a database that was copied)")
	raise := s.Uint64("bump-revision", 0, "how much to increase the latest revision")
	mark := s.Bool("mark-compacted", false, "compact everything before the increased revision (required with --bump-revision, disallowed otherwise)")
	s.Uint64("initial-memory-map-size", 0, "accepted, no effect")
	args, err := s.parse(1, "one argument")
	if err != nil {
		return err
	}
	if (*raise > 0) != *mark {
		return errors.New("--mark-compacted required if --revision-bump > 0")
	}
	if *raise > 1<<62 {
		return fmt.Errorf("--bump-revision %d is too large", *raise)
	}
	id, err := to.identity()
	if err != nil {
		return err
	}
	if *dataDir == "" {
		*dataDir = to.name + ".etcd"
	}
	if err := checkEmpty(*dataDir, *walDir); err != nil {
		return err
	}
	db, err := etcdfile.OpenSnapshot(args[0], *skip)
	if err != nil {
		return err
	}
	st, err := db.State()
	if err == nil {
		st.Members, st.Removed = id.members, nil
		err = s.build(*dataDir, func(dir *disk.Dir) error {
			in, err := engine.Import(dir, id.options(), db, st, int64(*raise))
			if err == nil {
				fmt.Fprintf(s.out, "restored %s to %s: revision %d, compact revision %d, %d versions of keys, %d leases\n",
					args[0], *dataDir, in.Revision, in.CompactRevision, in.Versions, in.Leases)
				fmt.Fprintf(s.out, "it is member %x of cluster %x\n", id.member, id.cluster)
			}
			return err
		})
	}
	return errors.Join(err, db.Close())
}

// options open a store of this identity outside a server.
func (id *identity) options() engine.Options {
	return engine.Options{ClusterID: id.cluster, MemberID: id.member, QuotaBytes: -1}
}

// build makes a store with do, which must leave it whole and closed.
func (s *subrun) build(dataDir string, do func(dir *disk.Dir) error) error {
	dir, err := disk.OpenDir(filepath.Join(dataDir, storeDir), disk.Options{})
	if err != nil {
		return err
	}
	err = do(dir)
	if err == nil {
		err = engine.FinishImport(dir)
	}
	return errors.Join(err, dir.Close())
}
