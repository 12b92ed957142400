package durability

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"quire/test/harness"
)

// change is what one revision did, as "put key=value", "delete key", joined by "; ".
type change string

// book keeps what clients were told.
type book struct {
	mu struct {
		sync.Mutex
		acknowledged map[int64]change // by revision
		issued       map[change]bool  // every change that was ever asked for
		revision     int64            // the newest that any answer has named
		compacted    int64            // the newest compaction that was acknowledged
		asked        int64            // the newest compaction that was asked for
	}
}

func newBook() *book {
	b := &book{}
	b.mu.acknowledged, b.mu.issued = map[int64]change{}, map[change]bool{}
	return b
}

func (b *book) issue(c change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.issued[c] = true
}

func (b *book) acknowledge(c change, revision int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.acknowledged[revision] = c
	b.mu.revision = max(b.mu.revision, revision)
}

func (b *book) compact(asked, acknowledged int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.asked, b.mu.compacted = max(b.mu.asked, asked), max(b.mu.compacted, acknowledged)
}

func (b *book) newest() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.revision
}

// snapshot are copies for the checks.
func (b *book) snapshot() (acknowledged map[int64]change, issued map[change]bool, compacted, asked int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.mu.acknowledged), maps.Clone(b.mu.issued), b.mu.compacted, b.mu.asked
}

// writer is one client with keys of its own, in a closed loop.
type writer struct {
	name   string
	kv     pb.KVClient
	book   *book
	random *rand.Rand
	n      int // of writes so far: makes every value one of a kind
}

// run writes until the context ends or the server is gone.
func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.write(ctx); err != nil {
			return
		}
	}
}

func (w *writer) write(ctx context.Context) error {
	w.n++
	one := fmt.Sprintf("%s/%d", w.name, w.random.IntN(20))
	two := fmt.Sprintf("%s/%d", w.name, 20+w.random.IntN(20))
	value := fmt.Sprint(w.n)
	if w.random.IntN(20) == 0 {
		value += strings.Repeat("x", w.random.IntN(30_000))
	}
	switch w.random.IntN(4) {
	case 0:
		c := change(fmt.Sprintf("put %s=%s; put %s=%s", one, value, two, value))
		w.book.issue(c)
		resp, err := w.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{putOp(one, value), putOp(two, value)}})
		if err == nil {
			w.book.acknowledge(c, resp.GetHeader().GetRevision())
		}
		return err
	case 1:
		c := change("delete " + one)
		w.book.issue(c)
		resp, err := w.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(one)})
		if err == nil && resp.Deleted > 0 {
			w.book.acknowledge(c, resp.GetHeader().GetRevision())
		}
		return err
	}
	c := change(fmt.Sprintf("put %s=%s", one, value))
	w.book.issue(c)
	resp, err := w.kv.Put(ctx, &pb.PutRequest{Key: []byte(one), Value: []byte(value)})
	if err == nil {
		w.book.acknowledge(c, resp.GetHeader().GetRevision())
	}
	return err
}

func putOp(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

// compactor compacts and defragments while others write, so that kills hit these too.
func compactor(ctx context.Context, kv pb.KVClient, m pb.MaintenanceClient, b *book) {
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-ctx.Done():
		case <-time.After(40 * time.Millisecond):
		}
		revision := b.newest() - 500
		if revision < 2 {
			continue
		}
		b.compact(revision, 0)
		if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: revision, Physical: i%2 == 0}); err == nil {
			b.compact(revision, revision)
		}
		if i%5 == 4 {
			_, _ = m.Defragment(ctx, &pb.DefragmentRequest{}) // cut off by the kill, maybe
		}
	}
}

// loading says how to load a server.
type loading struct {
	seed    uint64
	length  time.Duration
	compact bool // compact and defragment meanwhile
}

// load runs writers, and a compactor if asked, against the server for a while, then kills it in the midst of them.
func load(t *testing.T, s *harness.Server, b *book, how loading) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range writers {
		conn := s.Conn(t)
		defer conn.Close()
		w := &writer{name: fmt.Sprintf("w%d-%d", how.seed, i), kv: pb.NewKVClient(conn), book: b, random: rand.New(rand.NewPCG(how.seed, uint64(i)))}
		wg.Go(func() { w.run(ctx) })
		if i == 0 && how.compact {
			wg.Go(func() { compactor(ctx, pb.NewKVClient(conn), pb.NewMaintenanceClient(conn), b) })
		}
	}
	time.Sleep(how.length)
	s.Kill()
	cancel()
	wg.Wait()
}

// writers is how many clients write at a time: enough that several writes share each batch of the server's log.
const writers = 8

// changeOf tells what the events of one revision did.
func changeOf(events []*mvccpb.Event) change {
	var parts []string
	for _, e := range events {
		if e.Type == mvccpb.Event_DELETE {
			parts = append(parts, "delete "+string(e.Kv.Key))
		} else {
			parts = append(parts, fmt.Sprintf("put %s=%s", e.Kv.Key, e.Kv.Value))
		}
	}
	return change(strings.Join(parts, "; "))
}

// containsPart tells whether a change does this among other things.
func containsPart(c change, part string) bool {
	for p := range strings.SplitSeq(string(c), "; ") {
		if p == part {
			return true
		}
	}
	return false
}
