package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire/disk"
	"quire/index"

	pb "quire/api/etcdserverpb"
)

// TestRestorePowerCut cuts the power at every operation of the follower's disk
// while it receives a snapshot, takes it over, goes on and makes a checkpoint.
func TestRestorePowerCut(t *testing.T) {
	cuts := 0
	for seed := uint64(1); seed <= 4; seed++ {
		rnd := rand.New(rand.NewPCG(seed, 10))
		lead, to := twoRigs(t, seed)
		prints := map[uint64]string{0: fingerprint(t, to.e), 1: fingerprint(t, to.e)}
		m := newModel()
		for range 60 {
			step(t, rnd, lead, m)
			prints[lead.index] = fingerprint(t, lead.e)
		}
		to.follow(lead, 10)
		if err := to.e.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		index, _, _ := offered(t, lead, 40)
		installed := false
		to.fs.OnOp(func(op int) {
			for range 3 {
				cuts++
				img := to.fs.Crash(disk.CrashChoice{Seed: rnd.Uint64(), Fate: disk.Fate(rnd.IntN(4)), Strict: rnd.IntN(2) == 0, Process: rnd.IntN(5) == 0})
				e, err := Open(img, to.options())
				if err != nil {
					t.Fatalf("seed %d, operation %d: %v", seed, op, err)
				}
				a := e.AppliedIndex()
				if installed && a < index || fingerprint(t, e) != prints[a] {
					t.Fatalf("seed %d, operation %d: recovered index %d:\n got %s\nwant %s", seed, op, a, fingerprint(t, e), prints[a])
				}
				if rnd.IntN(10) == 0 { // and it can go on to receive
					again := *to
					again.e, again.fs, again.index = e, img, a
					if a < index {
						takeSnapshot(t, lead, &again, 40)
					}
					again.follow(lead, 1000)
					if fingerprint(t, e) != prints[lead.index] {
						t.Fatalf("seed %d, operation %d: went on to another state", seed, op)
					}
				}
				if err := e.Abandon(); err != nil {
					t.Fatal(err)
				}
			}
		})
		takeSnapshot(t, lead, to, 40)
		installed = true
		to.follow(lead, 10)
		if err := errors.Join(to.e.RunPending(), to.e.Checkpoint()); err != nil {
			t.Fatal(err)
		}
		to.fs.OnOp(nil)
		if err := errors.Join(to.e.Close(), lead.e.Close()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d power cuts", cuts)
}

// TestRestoreDiskErrors fails every operation of the follower's disk. A failing
// transfer leaves the member as it was; a failing Restore is an error, after which
// the next start finds one of the two states.
func TestRestoreDiskErrors(t *testing.T) {
	lead, base := twoRigs(t, 3)
	rnd := rand.New(rand.NewPCG(3, 3))
	m := newModel()
	prints := map[uint64]string{}
	for range 40 {
		step(t, rnd, lead, m)
		prints[lead.index] = fingerprint(t, lead.e)
	}
	base.follow(lead, 5)
	if err := base.e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []error{unix.EIO, unix.ENOSPC} {
		for n := 1; ; n++ {
			to := &rig{t: t, fs: base.fs.Clone(uint64(n)), log: lead.log, index: base.index, id: 10, member: base.member, quiet: true}
			to.open()
			index, term, conf := offered(t, lead, 20)
			to.fs.InjectErr(disk.Fault{Kind: disk.OpAny, Nth: n, Forever: n%3 == 0, Err: errno})
			err := stage(lead, to, index, term, nil)
			if err != nil {
				if fingerprint(t, to.e) != prints[to.index] || to.e.keys().store.NoSpace() != nil {
					t.Fatalf("operation %d, %v: the member has changed", n, errno)
				}
				to.fs.ClearErrs()
				if err = stage(lead, to, index, term, nil); err != nil {
					t.Fatalf("operation %d, %v, again: %v", n, errno, err)
				}
			}
			if err = to.e.Restore(index, term, conf); err == nil {
				to.index = index
			}
			done := to.fs.Faulted() == 0
			to.fs.ClearErrs()
			_ = to.e.Abandon()
			img := to.fs.Crash(disk.CrashChoice{Seed: uint64(n), Fate: disk.DropAll})
			e, openErr := Open(img, to.options())
			if openErr != nil {
				t.Fatalf("operation %d, %v, %v: %v", n, errno, err, openErr)
			}
			a := e.AppliedIndex()
			if fingerprint(t, e) != prints[a] || err == nil && a != index {
				t.Fatalf("operation %d, %v: recovered index %d after %v", n, errno, a, err)
			}
			if e.Abandon(); done {
				break
			}
		}
	}
}

// TestRestoreDamage flips bits of what was staged: the snapshot is taken over
// right, or it is refused and the member keeps its state.
func TestRestoreDamage(t *testing.T) {
	lead, base := twoRigs(t, 5)
	rnd := rand.New(rand.NewPCG(5, 3))
	m := newModel()
	prints := map[uint64]string{}
	for range 40 {
		step(t, rnd, lead, m)
		prints[lead.index] = fingerprint(t, lead.e)
	}
	base.follow(lead, 5)
	if err := base.e.Close(); err != nil {
		t.Fatal(err)
	}
	index, term, conf := offered(t, lead, 20)
	refused := 0
	for n := range 150 {
		to := &rig{t: t, fs: base.fs.Clone(uint64(n)), log: lead.log, index: base.index, id: 10, member: base.member, quiet: true}
		to.open()
		if err := stage(lead, to, index, term, nil); err != nil {
			t.Fatal(err)
		}
		infos, err := to.fs.List("00000001")
		if err != nil || len(infos) < 3 {
			t.Fatal(infos, err)
		}
		f := infos[rnd.IntN(len(infos))]
		to.fs.FlipBit("00000001/"+f.Name, rnd.Int64N(f.SizeBytes*8))
		err = to.e.Restore(index, term, conf)
		if err != nil {
			refused++
			index = to.e.AppliedIndex()
		}
		_, _, _, hashErr := to.e.HashKV(0)
		if hashErr == nil && fingerprint(t, to.e) != prints[index] {
			t.Fatalf("%s damaged: another state, after %v", f.Name, err)
		}
		index = 0
		if i, _, _, ok := lead.e.Transfers().Offer(20); ok {
			index = i
		}
		_ = to.e.Abandon()
		if err != nil {
			to.open() // what was damaged is not tried again
			if err := stage(lead, to, index, term, nil); err != nil {
				t.Fatal(err)
			}
			if err := to.e.Restore(index, term, conf); err != nil {
				t.Fatal(err)
			}
		}
	}
	if refused == 0 || refused == 150 {
		t.Fatalf("%d of 150 refused", refused)
	}
}

// TestRestoreKeepsReaders: who reads when a snapshot comes goes on; the old store
// goes when the last one has ended.
func TestRestoreKeepsReaders(t *testing.T) {
	lead, to := twoRigs(t, 1)
	for i := range 300 {
		lead.apply(op(t, OpPut, &pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", i), Value: make([]byte, 300)}))
	}
	to.follow(lead, 200)
	if err := to.e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	cursor := to.e.RangeStream(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, 5000)
	if _, _, done, err := cursor.Next(nil); done || err != nil {
		t.Fatal(done, err)
	}
	old, pin := to.e.read()
	rev := int64(0)
	to.onRev = func(r int64) { rev = r }
	lead.apply(op(t, OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("k050"), RangeEnd: []byte("k060")}))
	takeSnapshot(t, lead, to, lead.index)
	if rev != lead.e.Revision() || to.e.Revision() != rev {
		t.Fatalf("told of revision %d", rev)
	}
	// The cursor goes on at its revision, in the new store.
	got := 10
	for done := false; !done; {
		var body []byte
		var err error
		if body, _, done, err = cursor.Next(nil); err != nil {
			t.Fatal(err)
		}
		resp := new(pb.RangeResponse)
		if err := resp.UnmarshalVT(body); err != nil {
			t.Fatal(err)
		}
		got += len(resp.Kvs)
	}
	if got != 200 {
		t.Fatalf("%d keys at the cursor's revision", got)
	}
	n := 0
	old.eachAt(everything, old.visible.Load(), 0, func(hit *index.Hit) bool {
		var kv keyValue
		if err := old.readKV(hit.Loc, &kv); err != nil {
			t.Fatal(err)
		}
		n++
		return true
	})
	if n != 200 {
		t.Fatalf("%d keys in the old store", n)
	}
	to.e.Transfers().tidy()
	if len(to.e.transfers.retired.keyspaces) != 1 {
		t.Fatal("closed under a reader")
	}
	pin.Release()
	to.e.Transfers().tidy()
	if len(to.e.transfers.retired.keyspaces) != 0 {
		t.Fatal("not closed")
	}
	if infos, err := to.fs.List(""); err != nil || len(infos) != 1 {
		t.Fatalf("files of the old store are left: %v, %v", infos, err)
	}
}

// TestRestoreTakesEverything lists the parts of an Engine. A part that is new
// here must be taken over by takeOver, or say why it is not.
func TestRestoreTakesEverything(t *testing.T) {
	parts := map[string]string{
		"opts": "this member's own", "tally": "counts what this process did", "log": "this member's own", "present": "taken", "lessor": "taken", "alarms": "taken",
		"cluster": "taken", "applied": "taken", "term": "taken", "writer": "a lock", "ap": "position and keyspace taken, the rest is scratch",
		"auth": "taken", "compactor": "the compact revision taken", "checkpoint": "this member's own", "leader": "a follower leads nothing",
		"home": "this member's own", "full": "this member's own", "transfers": "this member's own", "snapshots": "this member's own", "wg": "goroutines", "ctx": "goroutines", "cancel": "goroutines",
		"fatal": "this member's own", "opened": "this member's own",
	}
	typ := reflect.TypeFor[Engine]()
	for i := range typ.NumField() {
		if parts[typ.Field(i).Name] == "" {
			t.Errorf("does Engine.%s come with a snapshot?", typ.Field(i).Name)
		}
	}
}

// TestRestoreReplacesState: alarms, members, users and versions are the
// source's, also where this member had others.
func TestRestoreReplacesState(t *testing.T) {
	lead, to := twoRigs(t, 2)
	to.apply(op(t, OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 10, Alarm: pb.AlarmType_CORRUPT}),
		op(t, OpUserAdd, &pb.AuthUserAddRequest{Name: "old", HashedPassword: "x"}),
		op(t, OpMemberAttr, &pb.Member{ID: 9, Name: "old", ClientURLs: []string{"http://old"}}))
	delete(lead.log, to.index)
	lead.apply(AppendOp(nil, OpClusterVersion, []byte("3.7.0")),
		op(t, OpUserAdd, &pb.AuthUserAddRequest{Name: "new", HashedPassword: "y"}),
		op(t, OpRoleAdd, &pb.AuthRoleAddRequest{Name: "r"}),
		op(t, OpMemberAttr, &pb.Member{ID: 9, Name: "a", ClientURLs: []string{"http://c"}}),
		op(t, OpLeaseGrant, &pb.LeaseGrantRequest{ID: 7, TTL: 50}),
		op(t, OpPut, &pb.PutRequest{Key: []byte("k"), Lease: 7}))
	for i := range 20 {
		lead.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k"), Value: []byte{byte(i)}, Lease: 7}))
	}
	lead.apply(op(t, OpCompact, &pb.CompactionRequest{Revision: 15}))
	for i, c := range []struct {
		kind, node uint64
		m          *pb.Member
	}{{confRemove, 10, nil}, {confAddLearner, 11, &pb.Member{PeerURLs: []string{"http://n"}}}} {
		cc, err := EncodeConfChange(ConfChange{Kind: c.kind, Node: c.node, Member: c.m})
		if err != nil {
			t.Fatal(err)
		}
		lead.index++
		if lead.e.ApplyConfChange(lead.index, 1, cc, nil) == nil {
			t.Fatalf("change %d refused", i)
		}
	}
	lead.apply(op(t, OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 9, Alarm: pb.AlarmType_NOSPACE}))
	l := &countingListener{}
	to.e.opts.AuthListener = l
	takeSnapshot(t, lead, to, lead.index)
	for range 2 {
		if got, want := fingerprint(t, to.e), fingerprint(t, lead.e); got != want {
			t.Fatalf("got %s\nwant %s", got, want)
		}
		if to.e.MemberID() != 10 || to.e.ClusterID() != 7 {
			t.Fatalf("is member %d of cluster %d", to.e.MemberID(), to.e.ClusterID())
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if err := to.e.AwaitCompacted(ctx, 15); err != nil {
			t.Fatal(err)
		}
		cancel()
		to.log = map[uint64][]byte{}
		to.crash()
	}
	if l.changed != 1 || l.revoked != 1 {
		t.Errorf("told of %d changes, %d revocations", l.changed, l.revoked)
	}
}

type countingListener struct{ changed, revoked int }

func (l *countingListener) Changed()                      { l.changed++ }
func (l *countingListener) Issued(uint64, string, string) {}
func (l *countingListener) Revoked(string)                { l.revoked++ }

// TestRestoreDuringCompaction: a compaction under way ends with its keyspace and
// puts nothing into the new one.
func TestRestoreDuringCompaction(t *testing.T) {
	lead, to := twoRigs(t, 1)
	for range 50 {
		lead.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 100)}))
	}
	lead.apply(op(t, OpCompact, &pb.CompactionRequest{Revision: 45}))
	to.follow(lead, 100)
	lead.e.compactTo(45)
	lead.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k")}))
	steps := make(chan bool)
	to.e.opts.CompactionBatch, to.e.opts.CompactionSleep = 1, time.Millisecond
	to.e.opts.OnTimed = func(what Timed, _ time.Duration) {
		if what == TimedCompactionStep {
			steps <- true
		}
	}
	done := make(chan bool)
	go func() {
		to.e.compactTo(45)
		close(done)
	}()
	<-steps
	<-steps
	takeSnapshot(t, lead, to, lead.index)
	for open := true; open; {
		select {
		case <-steps:
		case <-done:
			open = false
		}
	}
	if n, want := len(to.e.keys().graves), len(lead.e.keys().graves); n != want {
		t.Fatalf("%d graves in the new keyspace, want %d", n, want)
	}
	if got, want := fingerprint(t, to.e), fingerprint(t, lead.e); got != want {
		t.Fatalf("got %s\nwant %s", got, want)
	}
}
