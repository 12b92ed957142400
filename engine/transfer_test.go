package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"quire/disk"
	"quire/pagestore"

	pb "quire/api/etcdserverpb"
)

// fingerprint tells everything that is replicated.
func fingerprint(t testing.TB, e *Engine) string {
	t.Helper()
	hash, compact, rev, err := e.HashKV(0)
	if err != nil {
		t.Fatal(err)
	}
	s := fmt.Sprintf("revision %d compact %d hash %x version %q removed %v\n", rev, compact, hash, e.ClusterVersion(), e.cluster.removedIDs())
	l := e.lessor
	l.mu.RLock()
	ids := len(l.mu.byID)
	for id := range int64(1000) {
		if slot, ok := l.mu.byID[id]; ok {
			le := &l.mu.slots[slot]
			s += fmt.Sprintf("lease %d ttl %d left %d", id, le.ttl, le.remaining)
			ids--
			l.mu.RUnlock()
			keys, _ := l.keysOf(id)
			l.mu.RLock()
			s += fmt.Sprintf(" keys %q\n", keys)
		}
	}
	l.mu.RUnlock()
	if ids != 0 {
		t.Fatalf("%d leases with large ids", ids)
	}
	for _, a := range e.Alarms() {
		s += fmt.Sprintf("alarm %v\n", a)
	}
	for _, m := range e.Members() {
		s += fmt.Sprintf("member %v\n", m)
	}
	as := e.AuthState()
	sum, err := e.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	return s + fmt.Sprintf("auth %v %d %v %v\n%x\n", as.Enabled, as.Revision, as.Users, as.Roles, sum)
}

// twoRigs are a leader and a follower of one cluster, which share the log.
func twoRigs(t testing.TB, seed uint64) (lead, follow *rig) {
	members := []*pb.Member{{ID: 9, PeerURLs: []string{"http://a"}}, {ID: 10, PeerURLs: []string{"http://b"}, IsLearner: seed%2 == 0}}
	for _, id := range []uint64{9, 10} {
		r := &rig{t: t, fs: disk.NewMem(seed + id<<32), log: map[uint64][]byte{}, index: 1, prev: true, id: id, member: members}
		r.open()
		if lead == nil {
			lead = r
		} else {
			follow = r
		}
	}
	follow.log = lead.log
	return lead, follow
}

// follow applies up to n entries of the leader's log.
func (r *rig) follow(lead *rig, n int) {
	for ; n > 0 && r.index < lead.index; n-- {
		r.index++
		r.e.Apply(r.index, 1, r.log[r.index], nil)
	}
}

// offered has the leader name a snapshot of index atLeast or later.
func offered(t testing.TB, lead *rig, atLeast uint64) (index, term uint64, conf []byte) {
	t.Helper()
	for range 3 {
		if index, term, conf, ok := lead.e.Transfers().Offer(atLeast); ok {
			return index, term, conf
		}
		if err := lead.e.RunPending(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no snapshot is offered")
	return 0, 0, nil
}

var errLine = errors.New("line broken")

// stage moves an offered snapshot to the follower; before each read comes between.
func stage(lead, to *rig, index, term uint64, between func() error) error {
	s := lead.e.Transfers()
	manifest, err := s.Manifest(index, term)
	if err != nil {
		return err
	}
	return to.e.Transfers().Stage(context.Background(), index, term, manifest, func(blob uint32, p []byte, off int64) (int, error) {
		if between != nil {
			if err := between(); err != nil {
				return 0, err
			}
		}
		return lead.e.Transfers().ReadAt(index, term, blob, p, off)
	})
}

// takeSnapshot moves a snapshot from the leader to a rig and has it take it over.
func takeSnapshot(t testing.TB, lead, to *rig, atLeast uint64) {
	t.Helper()
	index, term, conf := offered(t, lead, atLeast)
	if err := stage(lead, to, index, term, nil); err != nil {
		t.Fatal(err)
	}
	lead.e.Transfers().Release(index, term)
	if err := to.e.Restore(index, term, conf); err != nil {
		t.Fatal(err)
	}
	to.index = index
}

// TestSnapshotModel: a follower applies some of what the leader does, and gets
// snapshots over a line that breaks, while the leader goes on, compacts,
// reclaims and crashes. Whatever it holds is what the leader held at that index.
func TestSnapshotModel(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		lead, to := twoRigs(t, seed)
		m := newModel()
		prints := map[uint64]string{1: fingerprint(t, lead.e)}
		work := func() {
			step(t, rnd, lead, m)
			if rnd.IntN(10) == 0 {
				if err := lead.e.RunPending(); err != nil {
					t.Fatal(err)
				}
			}
			prints[lead.index] = fingerprint(t, lead.e)
		}
		check := func() {
			t.Helper()
			if want := prints[to.e.AppliedIndex()]; to.e.AppliedIndex() > 0 && want != "" && fingerprint(t, to.e) != want {
				t.Fatalf("at index %d:\n got %s\nwant %s", to.e.AppliedIndex(), fingerprint(t, to.e), want)
			}
		}
		for range 60 {
			for range rnd.IntN(8) {
				work()
			}
			switch n := rnd.IntN(10); {
			case n < 3:
				to.follow(lead, rnd.IntN(5))
			case n < 4:
				to.crash()
			case n < 5:
				if err := errors.Join(to.e.Checkpoint(), to.e.RunPending()); err != nil {
					t.Fatal(err)
				}
			case n < 8 && lead.index > to.index:
				brokenTransfer(t, rnd, lead, to, work)
			}
			check()
		}
		to.follow(lead, 1000)
		check()
		checkHistory(t, to, m)
		for range 50 {
			checkRange(t, rnd, to, m)
		}
		to.crash()
		check()
		if err := errors.Join(to.e.RunPending(), to.e.Close(), lead.e.Close()); err != nil {
			t.Fatal(err)
		}
		onlyCurrent(t, to.fs)
	})
}

// brokenTransfer moves a snapshot, with everything that may happen meanwhile.
func brokenTransfer(t *testing.T, rnd *rand.Rand, lead, to *rig, work func()) {
	atLeast := to.index + 1 + rnd.Uint64N(lead.index-to.index)
	index, term, conf := offered(t, lead, atLeast)
	for tries := 0; ; tries++ {
		left := rnd.IntN(12)
		err := stage(lead, to, index, term, func() error {
			if rnd.IntN(3) == 0 {
				work()
			}
			if left--; left < 0 {
				return errLine
			}
			return nil
		})
		if err == nil {
			break
		}
		switch {
		case errors.Is(err, ErrTransferGone): // the leader has restarted
			index, term, conf = offered(t, lead, atLeast)
		case errors.Is(err, ErrTransferBusy): // two were never taken over
			to.follow(lead, 1000)
			return
		case !errors.Is(err, errLine):
			t.Fatal(err)
		}
		if rnd.IntN(4) == 0 {
			to.crash()
		}
	}
	lead.e.Transfers().Release(index, term)
	if rnd.IntN(4) == 0 {
		return // it is never taken over
	}
	to.follow(lead, rnd.IntN(int(index-to.index))) // the log arrives after all, in part
	if err := to.e.Restore(index, term, conf); err != nil {
		t.Fatal(err)
	}
	to.index = index
}

// onlyCurrent checks that nothing is left of older and unfinished stores.
func onlyCurrent(t testing.TB, fs *disk.Mem) {
	t.Helper()
	h, err := pagestore.OpenHome(fs)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range h.Incoming() {
		t.Errorf("still there: whole %v, meta %x", in.Whole(), in.Meta())
	}
}

// TestOffers: how long checkpoints are held for peers.
func TestOffers(t *testing.T) {
	now := int64(0)
	lead, _ := twoRigs(t, 1)
	lead.clock = func() int64 { return now }
	lead.crash()
	put := func() {
		lead.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 100)}))
	}
	s := lead.e.Transfers()
	reads := func(index uint64) error {
		_, err := s.ReadAt(index, 1, 0, make([]byte, 10), 0)
		return err
	}
	if _, _, _, ok := lead.e.Transfers().Offer(0); ok {
		t.Fatal("offers an empty store")
	}
	var all []uint64
	for range maxOffers + 1 {
		put()
		index, _, _ := offered(t, lead, lead.index)
		all = append(all, index)
	}
	if err := reads(all[0]); !errors.Is(err, ErrTransferGone) {
		t.Fatalf("one offer too many: %v", err)
	}
	for _, i := range all[1:] {
		if err := reads(i); err != nil {
			t.Fatal(err)
		}
	}
	// Named twice: held until both have come for it and let go.
	newest := all[maxOffers]
	if i, _, _, ok := s.Offer(newest); !ok || i != newest {
		t.Fatal(i, ok)
	}
	for i := range 2 {
		if err := reads(newest); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Manifest(newest, 1); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		s.Release(newest, 1)
	}
	if err := reads(newest); !errors.Is(err, ErrTransferGone) {
		t.Fatal(err)
	}
	// Nobody reads from all[1]; all[2] is read from.
	now += int64(offerIdle) / 2
	if err := reads(all[2]); err != nil {
		t.Fatal(err)
	}
	now += int64(offerIdle)/2 + 1
	s.tidy()
	if err := reads(all[1]); !errors.Is(err, ErrTransferGone) {
		t.Fatal(err)
	}
	if err := reads(all[2]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Manifest(all[1], 1); !errors.Is(err, ErrTransferGone) {
		t.Fatal(err)
	}
	// The newest checkpoint does for an older index, not for a later one.
	if i, _, _, ok := lead.e.Transfers().Offer(3); !ok || i != newest {
		t.Fatal(i, ok)
	}
	if _, _, _, ok := lead.e.Transfers().Offer(newest + 1); ok {
		t.Fatal("offers what is not there")
	}
}

// TestStageRefuses: what is not this cluster's, not what was announced, or not
// needed.
func TestStageRefuses(t *testing.T) {
	lead, to := twoRigs(t, 1)
	never := func(uint32, []byte, int64) (int, error) { t.Fatal("fetched"); return 0, io.EOF }
	put := func(n int) {
		for range n {
			lead.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 100)}))
		}
	}
	put(5)
	index, term, conf := offered(t, lead, lead.index)
	manifest, err := lead.e.Transfers().Manifest(index, term)
	if err != nil {
		t.Fatal(err)
	}
	s := to.e.Transfers()
	ctx := context.Background()
	if err := s.Stage(ctx, index+1, term, manifest, never); !errors.Is(err, errTransferOther) {
		t.Fatal(err)
	}
	if err := s.Stage(ctx, index, term+1, manifest, never); !errors.Is(err, errTransferOther) {
		t.Fatal(err)
	}
	if err := s.Stage(ctx, index, term, manifest[:len(manifest)-1], never); err == nil {
		t.Fatal("a cut manifest")
	}
	to.e.opts.ClusterID = 8
	if err := s.Stage(ctx, index, term, manifest, never); !errors.Is(err, errTransferOther) || !strings.Contains(err.Error(), "cluster 7") {
		t.Fatal(err)
	}
	to.e.opts.ClusterID = 7
	if err := to.e.Restore(index, term, conf); err == nil {
		t.Fatal("took over what is not there")
	}
	if err := stage(lead, to, index, term, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Stage(ctx, index, term, manifest, never); err != nil {
		t.Fatalf("again: %v", err)
	}
	// An older one than what waits is not begun; only two wait.
	put(1)
	second, _, _ := offered(t, lead, lead.index)
	if err := stage(lead, to, second, term, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Stage(ctx, index, term, manifest, never); !errors.Is(err, ErrTransferSuperseded) {
		t.Fatal(err)
	}
	put(1)
	third, _, _ := offered(t, lead, lead.index)
	if err := stage(lead, to, third, term, nil); !errors.Is(err, ErrTransferBusy) {
		t.Fatal(err)
	}
	// Both are taken over, one after the other.
	for _, i := range []uint64{index, second} {
		if err := to.e.Restore(i, term, conf); err != nil || to.e.AppliedIndex() != i {
			t.Fatal(to.e.AppliedIndex(), err)
		}
	}
	if err := s.Stage(ctx, index, term, manifest, never); err != nil {
		t.Fatalf("an old one: %v", err)
	}
	if err := stage(lead, to, third, term, nil); err != nil {
		t.Fatal(err)
	}
	// Another membership than consensus has.
	if err := to.e.Restore(third, term, conf[:2]); !errors.Is(err, errTransferOther) {
		t.Fatal(err)
	}
	// The log overtakes one that waits.
	if err := stage(lead, to, third, term, nil); err != nil {
		t.Fatal(err)
	}
	to.index = second
	to.follow(lead, 100)
	to.e.Transfers().tidy()
	onlyCurrent(t, to.fs)
}

// TestUnwantedStages: snapshots that consensus has ignored, because their leader was replaced meanwhile, do not keep
// others out; one that it asks for does.
func TestUnwantedStages(t *testing.T) {
	lead, to := twoRigs(t, 1)
	var wanted uint64
	to.e.opts.Awaited = func(index, _ uint64) bool { return index == wanted }
	var all []uint64
	var term uint64
	var conf []byte
	for range 5 {
		lead.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 100)}))
		var index uint64
		index, term, conf = offered(t, lead, lead.index)
		all = append(all, index)
		if err := stage(lead, to, index, term, nil); err != nil {
			t.Fatalf("snapshot %d: %v", len(all), err)
		}
	}
	wanted = all[4]
	lead.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 100)}))
	next, _, _ := offered(t, lead, lead.index)
	if err := stage(lead, to, next, term, nil); err != nil {
		t.Fatal(err)
	}
	if err := to.e.Restore(all[4], term, conf); err != nil || to.e.AppliedIndex() != all[4] {
		t.Fatal("the one that is wanted has gone: ", err)
	}
	if err := to.e.Restore(all[3], term, conf); err == nil {
		t.Fatal("one that nobody wants is still there")
	}
}

// TestNewestStageWins: a newer snapshot ends the staging of an older one.
func TestNewestStageWins(t *testing.T) {
	lead, to := twoRigs(t, 1)
	var index []uint64
	for range 2 {
		lead.apply(op(t, OpPut, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 20000)}))
		i, _, _ := offered(t, lead, lead.index)
		index = append(index, i)
	}
	began, first := make(chan bool), make(chan error, 1)
	go func() {
		told := false
		first <- stage(lead, to, index[0], 1, func() error {
			if !told {
				told = true
				close(began)
			}
			time.Sleep(time.Millisecond)
			return errLine
		})
	}()
	<-began
	hang := make(chan error, 1)
	release := make(chan bool)
	go func() {
		s := to.e.Transfers()
		manifest, err := lead.e.Transfers().Manifest(index[0], 1)
		if err == nil {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			err = s.Stage(ctx, index[0], 1, manifest, func(uint32, []byte, int64) (int, error) {
				close(release)
				time.Sleep(20 * time.Millisecond) // a slow peer
				return 0, errLine
			})
		}
		hang <- err
	}()
	if err := <-first; !errors.Is(err, errLine) && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-release
	if err := stage(lead, to, index[1], 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-hang; !errors.Is(err, ErrTransferSuperseded) {
		t.Fatal(err)
	}
}
