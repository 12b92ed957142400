package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	pb "quire/api/etcdserverpb"
	"quire/disk"
	"quire/pagestore"
)

// A member of a cluster whose store is damaged need not live with that, nor does an
// operator have to replace it: the state of another member takes the store's place,
// by the way of every snapshot, but while this engine is not open. The log is not
// touched: what it holds beyond that state is applied as after any start.
//
//  1. MarkDamaged makes a file beside the store, as soon as damage is found. While
//     it is there the store is not to be opened.
//  2. Rebuild receives a peer's checkpoint and installs it. What of the damaged store
//     verifies is used again.
//  3. When consensus has gone on from there, UnmarkDamaged removes the file.
//
// A crash in between begins again at 2, which finds most of the work done.
const damageMark = "damaged"

// MarkDamaged notes durably that the store is to be replaced.
func MarkDamaged(fsys disk.FS) error {
	f, err := fsys.Create(damageMark, 0)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// IsMarkedDamaged tells whether MarkDamaged was called, and UnmarkDamaged was not.
func IsMarkedDamaged(fsys disk.FS) (bool, error) {
	f, err := fsys.Open(damageMark, disk.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// UnmarkDamaged says that the store has been replaced and consensus knows it.
func UnmarkDamaged(fsys disk.FS) error { return fsys.Remove(damageMark) }

// IsDamage tells whether an error of Open is of damage to the store, which a
// Rebuild can make good.
func IsDamage(err error) bool {
	var damaged *pagestore.CorruptError
	return errors.As(err, &damaged)
}

// Remains is what can still be told of a damaged store.
type Remains struct {
	ClusterID, MemberID uint64
	Applied             uint64 // index of the checkpoint; the log goes back at least as far
	Members             []*pb.Member
}

// LookInto reads whose store it is and who the other members are.
func LookInto(fsys disk.FS) (*Remains, error) {
	dir, err := pagestore.Locate(fsys)
	if err != nil {
		return nil, err
	}
	cp, err := pagestore.Peek(dir)
	if err != nil {
		return nil, err
	}
	if cp == nil {
		return nil, errors.New("engine: the store has no checkpoint")
	}
	var m meta
	if err := m.decode(cp.Meta); err != nil {
		return nil, err
	}
	r := &Remains{ClusterID: m.clusterID, MemberID: m.memberID, Applied: m.applied}
	err = eachField(cp.State, func(typ byte, p []byte) error {
		if typ != fieldMember {
			return nil
		}
		x := new(pb.Member)
		r.Members = append(r.Members, x)
		return x.UnmarshalVT(p)
	})
	return r, err
}

// Rebuild replaces the store by the checkpoint that a peer describes by manifest.
// fetch reads from it. No engine is open on fsys.
func (r *Remains) Rebuild(ctx context.Context, fsys disk.FS, manifest []byte, fetch pagestore.FetchFunc) error {
	raw, err := pagestore.PeerMeta(manifest)
	if err != nil {
		return err
	}
	var m meta
	if err := m.decode(raw); err != nil {
		return err
	}
	if m.clusterID != r.ClusterID || m.applied < r.Applied {
		return fmt.Errorf("%w: index %d of cluster %x, this member needs %d of %x", errTransferOther, m.applied, m.clusterID, r.Applied, r.ClusterID)
	}
	m.memberID = r.MemberID
	home, err := pagestore.OpenHome(fsys)
	if err != nil {
		return err
	}
	in, err := home.Receive(manifest)
	if err != nil {
		return err
	}
	if err := in.Fetch(ctx, fetch, m.encode()); err != nil {
		return err
	}
	if err := home.Install(in); err != nil {
		return err
	}
	return home.RemoveOlder()
}
