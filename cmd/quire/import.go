package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"quire/disk"
	"quire/engine"
	"quire/engine/etcdfile"
)

const importUsage = `Usage: quire import --etcd-data-dir DIR --data-dir DIR [flags]

Makes a data directory of that of a stopped etcd member, which is only read.
Keys, revisions, leases, alarms, users and roles are taken over, also those that
etcd's log has and its database not yet. A cluster of one keeps its identity and
its member; otherwise the flags must say who the new member is, as for restore.
HashKV of both is printed and must be equal.
`

// importEtcd takes a stopped etcd member's data over.
func importEtcd(s *subrun) error {
	var to newCluster
	to.register(s.FlagSet)
	from := s.String("etcd-data-dir", "", "data directory of a stopped etcd (with member/snap/db in it)")
	fromWAL := s.String("etcd-wal-dir", "", "its log directory, if that lies elsewhere")
	dataDir := s.String("data-dir", "", "directory to make")
	walDir := s.String("wal-dir", "", "directory that the server will be given for its log; it must not exist")
	if _, err := s.parse(0, "no argument but flags"); err != nil {
		return err
	}
	if *from == "" || *dataDir == "" {
		return errors.New("--etcd-data-dir and --data-dir are required")
	}
	if err := checkEmpty(*dataDir, *walDir); err != nil {
		return err
	}
	if *fromWAL == "" {
		*fromWAL = filepath.Join(*from, "member", "wal")
	}
	db, err := etcdfile.Open(filepath.Join(*from, "member", "snap", "db"))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s holds no data of an etcd member: %w", *from, err)
	}
	if err != nil {
		return err
	}
	i := etcdImport{subrun: s, db: db}
	if err = i.read(*fromWAL); err == nil {
		err = i.identify(&to)
	}
	if err == nil {
		err = s.build(*dataDir, i.run)
	}
	return errors.Join(err, db.Close())
}

// etcdImport is one import.
type etcdImport struct {
	*subrun
	db      *etcdfile.File
	st      *etcdfile.State
	log     *etcdfile.Log
	id      identity
	members bool // the membership is taken over
}

func (i *etcdImport) read(walDir string) (err error) {
	if i.st, err = i.db.State(); err != nil {
		return err
	}
	i.log, err = etcdfile.ReadLog(walDir, i.st.ConsistentIndex)
	return err
}

// identify decides who the new member is.
func (i *etcdImport) identify(to *newCluster) (err error) {
	if to.asked(i.FlagSet) {
		if i.id, err = to.identity(); err == nil {
			i.st.Members, i.st.Removed = i.id.members, nil
		}
		return err
	}
	ids, err := i.memberIDs()
	if err != nil {
		return err
	}
	if len(ids) != 1 || !ids[i.log.NodeID] {
		return fmt.Errorf("etcd's cluster has %d members; say with --name, --initial-cluster and --initial-advertise-peer-urls who the new one is", len(ids))
	}
	i.members = true
	i.id = identity{member: i.log.NodeID, cluster: i.log.ClusterID}
	return nil
}

// memberIDs are those of the members at the end of the log, whether all of it is
// committed or not.
func (i *etcdImport) memberIDs() (map[uint64]bool, error) {
	ids := map[uint64]bool{}
	for _, m := range i.st.Members {
		ids[m.ID] = true
	}
	for _, e := range i.log.Entries {
		if e.Type != etcdfile.EntryConfChange {
			continue
		}
		c, err := etcdfile.ParseConfChange(e.Data)
		if err != nil {
			return nil, fmt.Errorf("etcd's log: entry %d: %w", e.Index, err)
		}
		switch {
		case c.Removes():
			delete(ids, c.Node)
		case c.Adds():
			ids[c.Node] = true
		}
	}
	return ids, nil
}

func (i *etcdImport) run(dir *disk.Dir) error {
	before, err := i.db.HashKV()
	if err != nil {
		return err
	}
	i.printf("etcd's database: HashKV %d at revision %d, compact revision %d\n", before.Hash, before.Revision, before.CompactRevision)
	in, err := engine.Import(dir, i.id.options(), i.db, i.st, 0)
	if err != nil {
		return err
	}
	opts := i.id.options()
	opts.Importing = true
	var broken error
	opts.OnFatal = func(err error) { broken = err }
	e, err := engine.Open(dir, opts)
	if err != nil {
		return err
	}
	err = i.compare(e, before)
	if err == nil {
		err = i.replay(e)
	}
	if err = errors.Join(err, broken); err != nil {
		return errors.Join(err, e.Abandon())
	}
	i.printf("imported %d versions of keys, %d leases\n", in.Versions, in.Leases)
	i.printf("it is member %x of cluster %x\n", i.id.member, i.id.cluster)
	return e.Close()
}

func (i *etcdImport) printf(format string, args ...any) { fmt.Fprintf(i.out, format, args...) }

func (i *etcdImport) compare(e *engine.Engine, before etcdfile.HashKV) error {
	hash, compactRev, rev, err := e.HashKV(0)
	if err != nil {
		return err
	}
	i.printf("quire's store:   HashKV %d at revision %d, compact revision %d\n", hash, rev, compactRev)
	if after := (etcdfile.HashKV{Hash: hash, Revision: rev, CompactRevision: compactRev}); after != before {
		return errors.New("HashKV is not equal: this directory must not be used")
	}
	i.printf("equal\n")
	return nil
}

// replay applies the entries that etcd's database did not have yet. What etcd
// would do at its next start: the only voter commits all that its log has; of a
// larger cluster only those entries count that are known to be committed.
func (i *etcdImport) replay(e *engine.Engine) error {
	entries := i.log.Entries
	n := 0
	for n < len(entries) && (i.alone(e) || entries[n].Index <= i.log.Commit) {
		if err := e.ApplyEtcd(&entries[n], i.members); err != nil {
			return fmt.Errorf("etcd's log: %w", err)
		}
		n++
	}
	if err := e.Rebase(); err != nil {
		return err
	}
	if n < len(entries) {
		i.printf("left out %d entries at the end of etcd's log that are not known to be committed\n", len(entries)-n)
	}
	if n == 0 {
		return nil
	}
	hash, compactRev, rev, err := e.HashKV(0)
	if err == nil {
		i.printf("with %d entries of etcd's log: HashKV %d at revision %d, compact revision %d\n", n, hash, rev, compactRev)
	}
	return err
}

// alone tells whether etcd's member is the only voter.
func (i *etcdImport) alone(e *engine.Engine) bool {
	if !i.members {
		return len(i.st.ConfState.Voters) == 1
	}
	voters := 0
	for _, m := range e.Members() {
		if !m.IsLearner {
			voters++
		}
	}
	return voters == 1
}
