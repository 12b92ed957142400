package realclient

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
)

// operation is what one client asked and was told, and when. A write's revision is its own, a read's that of its header.
type operation struct {
	start, end   time.Time
	revision     int64
	write        bool
	serializable bool   // a read that may be old
	at           int64  // a read's revision, if it asked for one
	key          string // of a read
	found        string // by a read
}

const (
	contendedKeys = 4
	contendTime   = 2 * time.Second
)

// contend runs one client for the time of the test.
func contend(ctx context.Context, kv pb.KVClient, client int, record func(operation)) error {
	random := rand.New(rand.NewPCG(uint64(client), 0))
	newest := int64(1)
	for i, begin := 0, time.Now(); time.Since(begin) < contendTime; i++ {
		key := fmt.Sprintf("k%d", random.IntN(contendedKeys))
		op := operation{start: time.Now(), key: key}
		var err error
		switch random.IntN(6) {
		case 0, 1:
			var resp *pb.PutResponse
			resp, err = kv.Put(ctx, put(key, fmt.Sprint(client, ".", i)))
			op.write, op.revision = true, resp.GetHeader().GetRevision()
		case 2:
			other := fmt.Sprintf("k%d", contendedKeys+random.IntN(2))
			var resp *pb.TxnResponse
			resp, err = kv.Txn(ctx, then(opDel(del(key, "")), opPut(put(other, fmt.Sprint(client, ".", i)))))
			op.write, op.revision = true, resp.GetHeader().GetRevision()
		default:
			op.serializable = random.IntN(3) == 0
			if random.IntN(3) == 0 {
				op.at = max(1, newest-random.Int64N(60))
			}
			var resp *pb.RangeResponse
			resp, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte(key), Serializable: op.serializable, Revision: op.at})
			if errText(err) == "OutOfRange: etcdserver: mvcc: required revision has been compacted" {
				continue // the compactor was faster
			}
			op.revision, op.found = resp.GetHeader().GetRevision(), kvsText(resp.GetKvs())
		}
		if err != nil {
			return err
		}
		newest = max(newest, op.revision)
		op.end = time.Now()
		record(op)
	}
	return nil
}

// TestConcurrentRequestsAreLinearizable lets clients write and read a few keys at once, with compactions meanwhile. Each
// read must find what its revision holds, and what began after another had ended must not have an older revision.
func TestConcurrentRequestsAreLinearizable(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	w.create(watchKey("k", "l"))
	var mu sync.Mutex
	var operations []operation
	record := func(op operation) {
		mu.Lock()
		defer mu.Unlock()
		operations = append(operations, op)
	}
	var wg sync.WaitGroup
	for client := range 8 {
		kv := pb.NewKVClient(s.Conn(t))
		wg.Go(func() {
			if err := contend(s.ctx, kv, client, record); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		for begin := time.Now(); time.Since(begin) < contendTime; {
			time.Sleep(50 * time.Millisecond)
			resp, err := s.kv.Range(s.ctx, get("k0", ""))
			if err == nil {
				_, _ = s.kv.Compact(s.ctx, &pb.CompactionRequest{Revision: resp.GetHeader().GetRevision() - 30}) // may be too early
			}
		}
	})
	wg.Wait()
	states := statesByRevision(w, s.revision(t))
	for _, op := range operations {
		at := op.revision
		if op.at != 0 {
			at = op.at
		}
		if want := states[at][op.key]; !op.write && op.found != want {
			t.Fatalf("%s at revision %d (asked for %d): found %q, it holds %q", op.key, op.revision, op.at, op.found, want)
		}
	}
	checkOrder(t, operations)
	t.Logf("%d operations, %d revisions", len(operations), len(states))
}

// statesByRevision replays the watch: for each revision the text of each key's record.
func statesByRevision(w *stream, last int64) map[int64]map[string]string {
	states := map[int64]map[string]string{1: {}}
	for revision := int64(1); revision < last; {
		for _, e := range w.next().Events {
			if e.Kv.ModRevision > revision {
				next := map[string]string{}
				for k, v := range states[revision] {
					next[k] = v
				}
				if e.Kv.ModRevision != revision+1 {
					w.t.Fatalf("revision %d after %d", e.Kv.ModRevision, revision)
				}
				revision = e.Kv.ModRevision
				states[revision] = next
			}
			states[revision][string(e.Kv.Key)] = kvText(e.Kv)
			if e.Type == mvccpb.Event_DELETE {
				delete(states[revision], string(e.Kv.Key))
			}
		}
	}
	return states
}

// checkOrder: of two operations one after the other, the later must not have the older revision; a write has a newer one.
func checkOrder(t *testing.T, operations []operation) {
	t.Helper()
	byEnd := append([]operation{}, operations...)
	byStart := append([]operation{}, operations...)
	sortBy(byEnd, func(o operation) time.Time { return o.end })
	sortBy(byStart, func(o operation) time.Time { return o.start })
	newest, i := int64(0), 0
	for _, op := range byStart {
		for ; i < len(byEnd) && byEnd[i].end.Before(op.start); i++ {
			newest = max(newest, byEnd[i].revision)
		}
		if op.revision < newest && !op.serializable || op.write && op.revision <= newest {
			t.Fatalf("an operation with revision %d (write %v) began after one with revision %d had ended", op.revision, op.write, newest)
		}
	}
}

func TestCompressedRequests(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	_, err := s.kv.Put(s.ctx, put("k", "v"), grpc.UseCompressor(gzip.Name))
	check(t, err)
	resp, err := s.kv.Range(s.ctx, get("k", ""), grpc.UseCompressor(gzip.Name))
	check(t, err)
	equal(t, "key", rangeText(resp), "rev 2 count 1: k=v(2,2,1)")
}

func TestManyConnections(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	var wg sync.WaitGroup
	for i := range 200 {
		conn := s.Conn(t)
		wg.Go(func() {
			kv := pb.NewKVClient(conn)
			if _, err := kv.Put(s.ctx, put(fmt.Sprintf("k%d", i), "v")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	equal(t, "keys", mustGet(t, s.kv, get("k", "l")).Count, int64(200))
}
