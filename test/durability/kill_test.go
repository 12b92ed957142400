package durability

import (
	"context"
	"flag"
	"math/rand/v2"
	"sort"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"quire/test/harness"
)

var (
	rounds   = flag.Int("rounds", 6, "how many times to kill the server")
	loadTime = flag.Duration("load", 700*time.Millisecond, "how long to write before each kill, on average")
	seedFlag = flag.Uint64("seed", 0, "seed of the writers; 0 picks one")
)

// TestKillUnderLoad kills the server in the midst of concurrent writers, again and again on the same data, and checks
// after each restart all that clients and a watcher were ever told.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := harness.Start(t)
	b := newBook()
	seen := watchEverything(t, s)
	for round := range *rounds {
		length := *loadTime/2 + time.Duration(random.Int64N(int64(*loadTime)))
		load(t, s, b, loading{seed: seed + uint64(round), length: length, compact: round%2 == 1})
		start := time.Now()
		s.Restart(t)
		t.Logf("round %d: newest acknowledged revision %d, ready again after %v", round, b.newest(), time.Since(start).Round(time.Millisecond))
		checkPromises(t, s, b, seen)
		if t.Failed() {
			return
		}
	}
}

// checkPromises reads the whole history that is left and compares it with what was told.
func checkPromises(t *testing.T, s *harness.Server, b *book, seen *sightings) {
	t.Helper()
	conn := s.Conn(t)
	defer conn.Close()
	acknowledged, issued, compacted, asked := b.snapshot()
	revision, first := bounds(t, pb.NewKVClient(conn), asked)
	if revision < b.newest() {
		t.Fatalf("revision %d: %d was acknowledged", revision, b.newest())
	}
	if first < compacted {
		t.Errorf("revisions from %d on can be read, a compaction at %d was acknowledged", first, compacted)
	}
	history := readHistory(t, pb.NewWatchClient(conn), first, revision)
	for rev := first + 1; rev <= revision; rev++ {
		got := history[rev]
		want, told := acknowledged[rev]
		if told && got != want {
			t.Errorf("revision %d: acknowledged %.200q, found %.200q", rev, want, got)
		}
		if !issued[got] {
			t.Errorf("revision %d: found %.200q, which nobody asked for as a whole", rev, got)
		}
	}
	for rev, c := range seen.wait(t, revision) {
		if rev > first && history[rev] != c {
			t.Errorf("revision %d: a watcher was shown %.200q, found %.200q", rev, c, history[rev])
		}
		if want, told := acknowledged[rev]; told && c != want {
			t.Errorf("revision %d: acknowledged %.200q, a watcher was shown %.200q", rev, want, c)
		}
	}
	checkKeys(t, pb.NewKVClient(conn), revision, first, history)
}

// bounds are the newest revision and the oldest that can be read.
func bounds(t *testing.T, kv pb.KVClient, asked int64) (revision, first int64) {
	t.Helper()
	resp, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	compacted := sort.Search(int(asked), func(i int) bool {
		_, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte{0}, Revision: int64(i + 1)})
		return status.Code(err) != codes.OutOfRange
	})
	return resp.GetHeader().GetRevision(), int64(compacted + 1)
}

// readHistory watches from the oldest revision to the newest.
func readHistory(t *testing.T, watch pb.WatchClient, first, revision int64) map[int64]change {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := watch.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: first + 1}}})
	if err != nil {
		t.Fatal(err)
	}
	history := map[int64]change{}
	for next := first + 1; next <= revision; {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("watch from %d stopped before %d: %v", first+1, next, err)
		}
		if resp.Canceled {
			t.Fatalf("watch from %d: %v", first+1, resp)
		}
		for rev, c := range byRevision(resp.Events) {
			history[rev] = c
			next = max(next, rev+1)
		}
	}
	return history
}

// byRevision splits events of whole revisions.
func byRevision(events []*mvccpb.Event) map[int64]change {
	split := map[int64][]*mvccpb.Event{}
	for _, e := range events {
		split[e.Kv.ModRevision] = append(split[e.Kv.ModRevision], e)
	}
	changes := map[int64]change{}
	for rev, evs := range split {
		changes[rev] = changeOf(evs)
	}
	return changes
}

// checkKeys compares the keys with their history: the newest version of each must be the last that the history has.
func checkKeys(t *testing.T, kv pb.KVClient, revision, first int64, history map[int64]change) {
	t.Helper()
	resp, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: revision})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Count != int64(len(resp.Kvs)) {
		t.Errorf("count %d of %d keys", resp.Count, len(resp.Kvs))
	}
	for _, k := range resp.Kvs {
		one := "put " + string(k.Key) + "=" + string(k.Value)
		if k.ModRevision > first && !containsPart(history[k.ModRevision], one) {
			t.Errorf("key %s has revision %d, whose change is %.200q", k.Key, k.ModRevision, history[k.ModRevision])
		}
		if k.CreateRevision > k.ModRevision || k.Version < 1 {
			t.Errorf("key %s: created %d, modified %d, version %d", k.Key, k.CreateRevision, k.ModRevision, k.Version)
		}
	}
}

// sightings are what a watcher was shown, over all restarts.
type sightings struct {
	mu struct {
		sync.Mutex
		changes map[int64]change
		newest  int64
		fault   string
	}
}

// watchEverything follows the whole store through clientv3, which resumes after each restart. When compaction passes it,
// it goes on from there.
func watchEverything(t *testing.T, s *harness.Server) *sightings {
	t.Helper()
	seen := &sightings{}
	seen.mu.changes = map[int64]change{}
	c, ctx := s.Client(t), clientv3.WithRequireLeader(t.Context())
	go func() {
		for next := int64(2); ctx.Err() == nil; {
			wctx, cancel := context.WithCancel(ctx)
			for resp := range c.Watch(wctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(next)) {
				if resp.CompactRevision != 0 {
					next = resp.CompactRevision
					seen.skipTo(next)
					break
				}
				seen.add(resp)
			}
			cancel()
		}
	}()
	return seen
}

// skipTo notes that compaction has taken the revisions before this one.
func (s *sightings) skipTo(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.newest = revision - 1
}

func (s *sightings) add(resp clientv3.WatchResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := resp.Err(); err != nil {
		s.mu.fault = err.Error()
		return
	}
	last := s.mu.newest
	for _, e := range resp.Events {
		if e.Kv.ModRevision <= s.mu.newest || e.Kv.ModRevision < last || (s.mu.newest > 0 && e.Kv.ModRevision > last+1) {
			s.mu.fault = "not in order: " + e.String()
		}
		last = e.Kv.ModRevision
	}
	for rev, c := range byRevision(resp.Events) {
		s.mu.changes[rev] = c
	}
	s.mu.newest = max(s.mu.newest, last)
}

// wait returns what was shown once it reaches the revision.
func (s *sightings) wait(t *testing.T, revision int64) map[int64]change {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		newest, fault := s.mu.newest, s.mu.fault
		s.mu.Unlock()
		if fault != "" {
			t.Fatalf("the watcher that lives through all restarts, at revision %d: %s", newest, fault)
		}
		if newest >= revision {
			return s.mu.changes // at rest: nobody writes now
		}
		if time.Now().After(deadline) {
			t.Fatalf("the watcher has come to revision %d of %d", newest, revision)
		}
	}
}
