package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"quire/api/authpb"
	pb "quire/api/etcdserverpb"
	"quire/disk"
	"quire/engine/auth"
	"quire/engine/etcdfile"
	"quire/pagestore"
)

// exported takes a snapshot and reads it.
func exported(t testing.TB, e *Engine) (*etcdfile.File, *etcdfile.State) {
	t.Helper()
	s, err := e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	db, err := etcdfile.Read(s, "snapshot", s.SizeBytes())
	if err != nil {
		t.Fatal(err)
	}
	st, err := db.State()
	if err != nil {
		t.Fatal(err)
	}
	return db, st
}

// sameHash compares the engine's hash with the one over the database.
func sameHash(t testing.TB, e *Engine, db *etcdfile.File) {
	t.Helper()
	hash, compactRev, rev, err := e.HashKV(0)
	if err != nil {
		t.Fatal(err)
	}
	h, err := db.HashKV()
	if want := (etcdfile.HashKV{Hash: hash, Revision: rev, CompactRevision: compactRev}); err != nil || h != want {
		t.Fatalf("the database has hash %+v, %v, the engine %+v", h, err, want)
	}
}

// imported makes an engine of a database.
func imported(t testing.TB, seed uint64, db *etcdfile.File, st *etcdfile.State, raise int64) *rig {
	t.Helper()
	r := &rig{t: t, fs: disk.NewMem(seed), log: map[uint64][]byte{}, index: 1, prev: true}
	opts := Options{ClusterID: 7, MemberID: 9, Pages: pagestore.Options{SegmentBytes: 64 << 10, PageBytes: 4 << 10, Inline: true}}
	if _, err := Import(r.fs, opts, db, st, raise); err != nil {
		t.Fatal(err)
	}
	r.snaps, r.quiet = t.TempDir(), true
	if _, err := Open(r.fs, opts); !errors.Is(err, ErrHalfImported) {
		t.Fatalf("open before the import is finished: %v", err)
	}
	if err := FinishImport(r.fs); err != nil {
		t.Fatal(err)
	}
	r.quiet = false
	r.open()
	return r
}

// TestExportImport takes random histories through an etcd database and back.
func TestExportImport(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		r, m := newRig(t, seed), newModel()
		for range 2 {
			for i := 0; i < 80 && !t.Failed(); i++ {
				step(t, rnd, r, m)
				if rnd.IntN(4) == 0 {
					if err := r.e.RunPending(); err != nil {
						t.Fatal(err)
					}
				}
			}
			db, st := exported(t, r.e)
			sameHash(t, r.e, db)
			r2 := imported(t, seed, db, st, 0)
			db2, st2 := exported(t, r2.e)
			sameHash(t, r2.e, db2)
			if st.ScheduledCompact == st.FinishedCompact {
				sameHash(t, r2.e, db)
			}
			if a, b := slices.Sorted(slices.Values(r.e.Leases())), slices.Sorted(slices.Values(r2.e.Leases())); !slices.Equal(a, b) {
				t.Fatalf("leases %v, want %v", b, a)
			}
			if st2.ConsistentIndex != 0 || st2.ScheduledCompact != st.ScheduledCompact {
				t.Fatalf("state %+v, was %+v", st2, st)
			}
			checkHistory(t, r2, m)
			r = r2 // the history goes on there
		}
	})
}

// TestExportState carries what is no version.
func TestExportState(t *testing.T) {
	r := newRig(t, 1)
	r.e.auth = auth.NewStore(&AuthState{Enabled: true, Revision: 5,
		Users: []*authpb.User{{Name: []byte("root"), Roles: []string{"root"}}},
		Roles: []*authpb.Role{{Name: []byte("root")}}})
	r.apply(AppendOp(nil, OpClusterVersion, []byte("3.7.0")))
	r.apply(op(t, OpLeaseGrant, &pb.LeaseGrantRequest{ID: 5, TTL: 100}), op(t, OpLeaseGrant, &pb.LeaseGrantRequest{ID: -6, TTL: 1000}),
		op(t, OpLeaseCheckpoint, &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: 5, Remaining_TTL: 7}, {ID: -6, Remaining_TTL: 8}}}))
	r.apply(op(t, OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 9, Alarm: pb.AlarmType_CORRUPT}))
	_, st := exported(t, r.e)
	want := []etcdfile.Lease{{ID: 5, TTL: 100}, {ID: -6, TTL: 1000, RemainingTTL: 8}}
	if !slices.Equal(st.Leases, want) {
		t.Errorf("leases %v, want %v", st.Leases, want)
	}
	if st.ConsistentIndex != r.index || st.Term != 1 || !slices.Equal(st.ConfState.Voters, []uint64{9}) || st.StorageVersion != "3.7.0" {
		t.Errorf("state %+v", st)
	}
	db, st := exported(t, r.e)
	r2 := imported(t, 2, db, st, 0)
	if !st.AuthEnabled || st.AuthRevision != 5 || len(st.Users) != 1 || len(st.Roles) != 1 {
		t.Errorf("auth %+v", st)
	}
	if got := r2.e.AuthState(); !got.Enabled || got.Revision != 5 || len(got.Users) != 1 || len(got.Roles) != 1 {
		t.Errorf("auth %+v", got)
	}
	if !r2.e.HasAlarm(pb.AlarmType_CORRUPT) || r2.e.ClusterVersion() != "3.7.0" || len(r2.e.Members()) != 1 {
		t.Errorf("alarms %v, version %s, members %v", r2.e.Alarms(), r2.e.ClusterVersion(), r2.e.Members())
	}
}

// TestRaise restores with a raised revision, more than once.
func TestRaise(t *testing.T) {
	r := newRig(t, 1)
	for i := range 5 {
		r.apply(op(t, OpPut, &pb.PutRequest{Key: []byte{'k', byte('0' + i%2)}, Value: []byte("v")}))
	}
	for want := range 3 {
		db, st := exported(t, r.e)
		r2 := imported(t, 2, db, st, 1000)
		rev := int64(6 + 1000*(want+1))
		if got := r2.e.Revision(); got != rev || r2.e.CompactRevision() != rev {
			t.Fatalf("revision %d, compact revision %d, want %d", got, r2.e.CompactRevision(), rev)
		}
		var resp pb.RangeResponse
		body, _, err := r2.e.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, nil)
		if err != nil || resp.UnmarshalVT(body) != nil || len(resp.Kvs) != 2 || resp.Count != 2 {
			t.Fatalf("range: %v, %v", &resp, err)
		}
		if _, _, err := r2.e.Range(&pb.RangeRequest{Key: []byte("k0"), Revision: rev - 1}, nil); !errors.Is(err, ErrCompacted) {
			t.Fatalf("read below the raised revision: %v", err)
		}
		db2, _ := exported(t, r2.e)
		sameHash(t, r2.e, db2)
		raised := 0
		if err := db2.Versions(func(v *etcdfile.Version, _ *etcdfile.KeyValue) error {
			if v.IsRaised() {
				raised++
			}
			return nil
		}); err != nil || raised != 1 {
			t.Fatalf("%d raised revisions, %v", raised, err)
		}
		r = r2
	}
}

func TestImportRefusesFullStore(t *testing.T) {
	r := newRig(t, 1)
	r.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k")}))
	db, st := exported(t, r.e)
	if err := r.e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(r.fs, Options{ClusterID: 7, MemberID: 9}, db, st, 0); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("import into a store in use: %v", err)
	}
}

// TestImportPowerCut cuts the power at every operation of an import. What is left
// is refused, or whole, or the import has never begun.
func TestImportPowerCut(t *testing.T) {
	r := newRig(t, 1)
	for i := range 30 {
		r.apply(op(t, OpPut, &pb.PutRequest{Key: []byte{'k', byte(i)}, Value: make([]byte, 2000)}))
	}
	r.apply(op(t, OpLeaseGrant, &pb.LeaseGrantRequest{ID: 5, TTL: 100}))
	db, st := exported(t, r.e)
	opts := Options{ClusterID: 7, MemberID: 9, Pages: pagestore.Options{SegmentBytes: 16 << 10, PageBytes: 4 << 10, Inline: true}}
	tail := etcdfile.Entry{Index: 40, Term: 3, Data: etcdPut(t, "from the log")}
	run := func(fsys *disk.Mem) error {
		if _, err := Import(fsys, opts, db, st, 0); err != nil {
			return err
		}
		o := opts
		o.Importing = true
		e, err := Open(fsys, o)
		if err != nil {
			return err
		}
		if err = e.ApplyEtcd(&tail, true); err == nil {
			err = e.Rebase()
		}
		if err = errors.Join(err, e.Abandon()); err != nil {
			return err
		}
		return FinishImport(fsys)
	}
	outcomes := map[string]int{}
	for n := 1; ; n++ {
		fsys := disk.NewMem(uint64(n))
		fsys.StopAfter(n)
		if run(fsys) == nil {
			break
		}
		for fate := range disk.TearAll + 1 {
			for _, c := range []disk.CrashChoice{{Fate: fate}, {Fate: fate, Strict: true}, {Process: true}} {
				c.Seed = uint64(n)
				outcomes[afterImport(t, fsys.Crash(c), opts, run)]++
			}
		}
	}
	if outcomes["half"] < 50 || outcomes["empty"] == 0 || outcomes["whole"] == 0 {
		t.Errorf("outcomes %v", outcomes)
	}
}

// afterImport opens what a power cut in an import has left.
func afterImport(t *testing.T, fsys *disk.Mem, opts Options, again func(*disk.Mem) error) string {
	t.Helper()
	files, err := fsys.List("")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		return "empty"
	}
	e, err := Open(fsys, opts)
	if errors.Is(err, ErrHalfImported) {
		if err := again(fsys); !errors.Is(err, ErrHalfImported) {
			t.Fatalf("import into what an import has left: %v", err)
		}
		return "half"
	}
	if err != nil {
		t.Fatal(err)
	}
	defer e.Abandon()
	if e.Revision() != 32 || len(e.Leases()) != 1 || e.MemberID() != 9 || e.AppliedIndex() != 0 {
		t.Fatalf("revision %d, leases %v, member %d, applied %d", e.Revision(), e.Leases(), e.MemberID(), e.AppliedIndex())
	}
	return "whole"
}

// etcdPut is the data of an entry in etcd's log: an InternalRaftRequest with a put.
func etcdPut(t *testing.T, key string) []byte {
	t.Helper()
	put, err := (&pb.PutRequest{Key: []byte(key)}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return appendMessage(nil, byte(etcdfile.KindPut)<<3|2, put)
}

// TestApplyEtcd translates entries of etcd's log of every kind that changes
// something, and refuses what it does not know.
func TestApplyEtcd(t *testing.T) {
	r := newRig(t, 1)
	index := uint64(1)
	apply := func(typ etcdfile.EntryType, data []byte) error {
		t.Helper()
		index++
		return r.e.ApplyEtcd(&etcdfile.Entry{Type: typ, Term: 1, Index: index, Data: data}, true)
	}
	request := func(kind etcdfile.RequestKind, body vtMessage) []byte {
		b, err := body.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		head := appendMessage(nil, 2<<3|2, []byte("root")) // username
		head = appendUint(head, 3<<3, r.e.auth.Revision())
		data := binary.AppendUvarint(nil, 100<<3|2)
		data = append(binary.AppendUvarint(data, uint64(len(head))), head...)
		data = binary.AppendUvarint(data, uint64(kind)<<3|2)
		return append(binary.AppendUvarint(data, uint64(len(b))), b...)
	}
	for _, step := range []struct {
		kind etcdfile.RequestKind
		body vtMessage
	}{
		{etcdfile.KindPut, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}},
		{etcdfile.KindTxn, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b")}}}}}},
		{etcdfile.KindDeleteRange, &pb.DeleteRangeRequest{Key: []byte("a")}},
		{etcdfile.KindRange, &pb.RangeRequest{Key: []byte("a")}},
		{etcdfile.KindCompaction, &pb.CompactionRequest{Revision: 3}},
		{etcdfile.KindLeaseGrant, &pb.LeaseGrantRequest{ID: 5, TTL: 100}},
		{etcdfile.KindLeaseGrant, &pb.LeaseGrantRequest{ID: 6, TTL: 100}},
		{etcdfile.KindLeaseRevoke, &pb.LeaseRevokeRequest{ID: 6}},
		{etcdfile.KindLeaseCheckpoint, &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: 5, Remaining_TTL: 9}}}},
		{etcdfile.KindAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 9, Alarm: pb.AlarmType_NOSPACE}},
		{etcdfile.KindAuthUserAdd, &pb.AuthUserAddRequest{Name: "root", HashedPassword: "aGFzaA=="}},
		{etcdfile.KindAuthRoleAdd, &pb.AuthRoleAddRequest{Name: "root"}},
		{etcdfile.KindAuthUserGrantRole, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}},
		{etcdfile.KindAuthEnable, &pb.AuthEnableRequest{}},
		{etcdfile.KindAuthRoleAdd, &pb.AuthRoleAddRequest{Name: "late"}},
	} {
		if err := apply(etcdfile.EntryNormal, request(step.kind, step.body)); err != nil {
			t.Fatalf("kind %d: %v", step.kind, err)
		}
	}
	if err := apply(etcdfile.EntryNormal, nil); err != nil {
		t.Fatalf("a leader's first entry: %v", err)
	}
	auth := r.e.AuthState()
	if r.e.Revision() != 4 || r.e.CompactRevision() != 3 || len(r.e.Leases()) != 1 || !r.e.HasAlarm(pb.AlarmType_NOSPACE) ||
		!auth.Enabled || len(auth.Users) != 1 || len(auth.Roles) != 2 || r.e.AppliedIndex() != index {
		t.Errorf("revision %d, compact revision %d, leases %v, auth %+v, applied %d of %d", r.e.Revision(), r.e.CompactRevision(), r.e.Leases(), auth, r.e.AppliedIndex(), index)
	}
	if err := apply(etcdfile.EntryNormal, request(4711, &pb.PutRequest{})); err == nil {
		t.Error("a request of an unknown kind is taken")
	}
	if err := apply(etcdfile.EntryConfChangeV2, nil); err == nil {
		t.Error("a change of the second kind is taken")
	}
}

// journal keeps every event, to tell what a snapshot must have.
type journal struct {
	sync.Mutex
	all []etcdfile.Version
}

func (j *journal) Publish(evs []Event, _ int64) {
	j.Lock()
	defer j.Unlock()
	for _, e := range evs {
		j.all = append(j.all, etcdfile.Version{Main: e.Main, Sub: int64(e.Sub), Tombstone: e.Delete, KV: etcdKV(e.KV, e.Delete)})
	}
}

func (j *journal) Restored(int64) {}

func (j *journal) WantsPrev() bool { return false }

func (j *journal) last() int64 {
	j.Lock()
	defer j.Unlock()
	if len(j.all) == 0 {
		return 1
	}
	return j.all[len(j.all)-1].Main
}

// expect returns the versions up to rev that compaction to compactRev leaves.
func (j *journal) expect(rev, compactRev int64) (left []string) {
	j.Lock()
	defer j.Unlock()
	newest := map[string]int{} // of those up to the compact revision
	for i, v := range j.all {
		if v.Main <= compactRev {
			newest[string(keyOf(v.KV))] = i
		}
	}
	for i, v := range j.all {
		if v.Main <= rev && (v.Main >= compactRev || newest[string(keyOf(v.KV))] == i && !v.Tombstone) {
			left = append(left, fmt.Sprintf("%d.%d %t %q", v.Main, v.Sub, v.Tombstone, v.KV))
		}
	}
	return left
}

// TestSnapshotWhileWriting takes snapshots, several at a time, beside writes,
// compactions and reclaim; each must be the state of one revision.
func TestSnapshotWhileWriting(t *testing.T) {
	var j journal
	e, err := Open(disk.NewMem(1), Options{ClusterID: 7, MemberID: 9, Publisher: &j, QuotaBytes: -1, SnapshotDir: t.TempDir(),
		Pages: pagestore.Options{SegmentBytes: 256 << 10, PageBytes: 4 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	e.Start()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { churn(t, ctx, e) })
	var taken int
	var mu sync.Mutex
	for range 6 {
		wg.Go(func() {
			for ctx.Err() == nil {
				before := e.Revision()
				s, err := e.Snapshot(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				checkSnapshot(t, &j, s, before)
				s.Close()
				mu.Lock()
				taken++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d snapshots up to revision %d", taken, e.Revision())
	if left, _ := os.ReadDir(e.opts.SnapshotDir); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}

// churn writes random keys and compacts now and then.
func churn(t *testing.T, ctx context.Context, e *Engine) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for index := uint64(1); ctx.Err() == nil; index++ {
		key := fmt.Appendf(nil, "key-%03d", rnd.IntN(300))
		o := op(t, OpPut, &pb.PutRequest{Key: key, Value: make([]byte, rnd.IntN(500))})
		switch n := rnd.IntN(200); {
		case n == 0:
			o = op(t, OpCompact, &pb.CompactionRequest{Revision: e.Revision() - rnd.Int64N(50)})
		case n < 30:
			o = op(t, OpDeleteRange, &pb.DeleteRangeRequest{Key: key})
		}
		e.Apply(index, 1, append(binary.AppendUvarint(nil, uint64(len(o))), o...), nil)
	}
}

func checkSnapshot(t *testing.T, j *journal, s *Snapshot, before int64) {
	db, err := etcdfile.Read(s, "snapshot", s.SizeBytes())
	if err != nil {
		t.Error(err)
		return
	}
	st, err := db.State()
	if err != nil {
		t.Error(err)
		return
	}
	var got []string
	rev := int64(0)
	err = db.Versions(func(v *etcdfile.Version, _ *etcdfile.KeyValue) error {
		got = append(got, fmt.Sprintf("%d.%d %t %q", v.Main, v.Sub, v.Tombstone, v.KV))
		rev = v.Main
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if rev < before && before > 1 {
		t.Errorf("the snapshot ends at revision %d, %d was there before it was asked for", rev, before)
	}
	waitFor(t, func() bool { return j.last() >= rev }) // a snapshot may be ahead of what is published by an entry
	if want := j.expect(rev, st.FinishedCompact); !slices.Equal(got, want) {
		t.Errorf("snapshot of revision %d, compacted to %d (%d): %d versions, want %d", rev, st.FinishedCompact, st.ScheduledCompact, len(got), len(want))
	}
}

// TestSnapshotShared checks who shares a file with whom.
func TestSnapshotShared(t *testing.T) {
	r := newRig(t, 1)
	r.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k")}))
	s := &r.e.snapshots
	s.turn <- struct{}{} // somebody writes
	snaps := make(chan *Snapshot, 10)
	ask := func(ctx context.Context) {
		snap, err := r.e.Snapshot(ctx)
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		snaps <- snap
	}
	first, cancel := context.WithCancel(t.Context())
	go ask(first)
	waitFor(t, func() bool { return s.shares() == 1 })
	for range 4 {
		go ask(t.Context())
	}
	waitFor(t, func() bool { return s.shares() == 5 })
	cancel() // another one must take over
	if snap := <-snaps; snap != nil {
		t.Fatal("a cancelled caller got a snapshot")
	}
	waitFor(t, func() bool { return s.shares() == 4 })
	<-s.turn
	var job *snapshotJob
	var all []*Snapshot
	for range 4 {
		snap := <-snaps
		if snap == nil {
			t.Fatal("no snapshot")
		}
		if job == nil {
			job = snap.job
		} else if snap.job != job {
			t.Error("two files for callers that waited together")
		}
		all = append(all, snap)
	}
	if n := len(s.places); n != 1 {
		t.Errorf("%d places are taken, want 1", n)
	}
	for _, snap := range all {
		snap.Close()
		snap.Close()
	}
	if n := len(s.places); n != 0 {
		t.Errorf("%d places are taken, want none", n)
	}
}

// shares is how many wait for the file that is not begun.
func (s *snapshots) shares() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.next == nil {
		return 0
	}
	return s.mu.next.shares
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

// TestSnapshotPlaces bounds the files that slow readers keep.
func TestSnapshotPlaces(t *testing.T) {
	r := newRig(t, 1)
	var held []*Snapshot
	for range maxSnapshots {
		s, err := r.e.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.e.Snapshot(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("one snapshot more: %v", err)
	}
	held[1].Close()
	s, err := r.e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestSnapshotLeftovers removes what a crash left.
func TestSnapshotLeftovers(t *testing.T) {
	dir := t.TempDir()
	mine, other := filepath.Join(dir, "export-123.db"), filepath.Join(dir, "other")
	for _, p := range []string{mine, other} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var s snapshots
	if err := s.init(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); !errors.Is(err, os.ErrNotExist) {
		t.Error("the leftover is still there")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// BenchmarkExport writes 100,000 keys of 32 bytes with values of 256 as an etcd
// database, and imports them.
func BenchmarkExport(b *testing.B) {
	const keys = 100_000
	dir, err := disk.OpenDir(b.TempDir(), disk.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	e, err := Open(dir, Options{ClusterID: 7, MemberID: 9, QuotaBytes: -1, SnapshotDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Abandon()
	var data []byte
	for i := range keys {
		o := op(b, OpPut, &pb.PutRequest{Key: fmt.Appendf(nil, "%032d", i*7919%keys), Value: make([]byte, 256)})
		if data = append(binary.AppendUvarint(data, uint64(len(o))), o...); i%100 == 99 {
			e.Apply(uint64(i), 1, data, nil)
			data = data[:0]
		}
	}
	b.Run("export", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := e.Snapshot(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(s.SizeBytes())
			s.Close()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/keys, "ns/version")
	})
	db, st := exported(b, e)
	b.Run("import", func(b *testing.B) {
		for b.Loop() {
			to, err := disk.OpenDir(b.TempDir(), disk.Options{NoSync: true})
			if err == nil {
				_, err = Import(to, Options{ClusterID: 7, MemberID: 9}, db, st, 0)
			}
			if err == nil {
				err = to.Close()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/keys, "ns/version")
	})
}
