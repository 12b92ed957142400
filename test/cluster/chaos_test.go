package cluster

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"quire/test/harness"
)

var (
	chaosTime = flag.Duration("chaos", 15*time.Second, "how long faults are made")
	chaosSeed = flag.Uint64("seed", 0, "of the faults and clients; 0: by the clock")
)

// chaos is a cluster with clients while things happen to it.
type chaos struct {
	t       *testing.T
	c       *harness.Cluster
	random  *rand.Rand
	faults  []fault
	done    map[string]int     // faults by name
	clients []*clientv3.Client // one of each member
	h       *history
	counted int // sections that lock holders left in order
}

// TestChaos: members are killed, paused, cut off, wiped and replaced while clients write, read, watch and lock. Whatever
// was acknowledged holds: the history is linearizable, watches are complete and in order, and in the end all members have
// the same.
func TestChaos(t *testing.T) {
	for _, tt := range []struct {
		name string
		harness.ClusterConfig
	}{
		{"3", harness.ClusterConfig{Size: 3}},
		{"5", harness.ClusterConfig{Size: 5}},
		{"hosts", harness.ClusterConfig{Size: 3, Hosts: true, Security: harness.Mutual}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seed := *chaosSeed
			if seed == 0 {
				seed = uint64(time.Now().UnixNano())
			}
			t.Logf("again with: go test ./cluster -run 'TestChaos/%s' -seed %d -chaos %v", tt.name, seed, *chaosTime)
			x := &chaos{t: t, random: rand.New(rand.NewPCG(seed, uint64(tt.Size))), faults: faults(), done: map[string]int{}, h: newHistory()}
			tt.Flags = []string{"--heartbeat-interval=50", "--election-timeout=500", "--snapshot-count=200", "--snapshot-catchup-entries=100"}
			x.c = harness.StartClusterConfig(t, tt.ClusterConfig)
			for _, s := range x.c.Servers {
				x.clients = append(x.clients, x.c.Client(t, s))
			}
			x.run(seed)
		})
	}
}

func (x *chaos) run(seed uint64) {
	t := x.t
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var clients, watchers sync.WaitGroup
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	for i := range 6 {
		w := &worker{id: i, h: x.h, clients: x.clients, random: rand.New(rand.NewPCG(seed, 100+uint64(i)))}
		clients.Go(func() { w.run(working) })
	}
	clients.Go(func() { x.lockAndCount(working) })
	var ws []*watcher
	for i, cli := range x.clients {
		w := &watcher{name: fmt.Sprint("the watcher of m", i+1)}
		ws = append(ws, w)
		watchers.Go(func() { w.run(ctx, cli) })
	}
	for deadline := time.Now().Add(*chaosTime); time.Now().Before(deadline) && !t.Failed(); {
		x.fault()
	}
	x.c.Heal(t)
	x.c.Leader(t)
	time.Sleep(time.Second) // some work in peace
	stopWork()
	clients.Wait()
	last, err := x.clients[0].Put(ctx, "k/last", "")
	check(t, err)
	for _, w := range ws {
		w.await(t, last.Header.Revision)
	}
	end()
	watchers.Wait()
	known := x.h.check(t)
	x.h.checkWatches(t, ws)
	x.same(last.Header.Revision)
	x.checkCount()
	t.Logf("%d operations, %d with a known outcome; %d changes; %d locked sections; faults: %v", len(x.h.mu.ops), known, len(ws[0].changes()), x.counted, x.done)
	if known < 100 {
		t.Errorf("only %d operations were answered", known)
	}
}

// leading is the place of a member that says that it leads, -1 if none does.
func (x *chaos) leading() int {
	for i, cli := range x.clients {
		ctx, cancel := context.WithTimeout(x.t.Context(), 500*time.Millisecond)
		st, err := cli.Status(ctx, x.c.Servers[i].Endpoint)
		cancel()
		if err == nil && st.Leader == st.Header.MemberId {
			return i
		}
	}
	return -1
}

// lockAndCount takes a lock again and again and counts in a key that only its holder may write.
func (x *chaos) lockAndCount(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		cli := x.clients[n%len(x.clients)]
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		x.section(try, cli)
		cancel()
		time.Sleep(20 * time.Millisecond)
	}
}

func (x *chaos) section(ctx context.Context, cli *clientv3.Client) {
	session, err := concurrency.NewSession(cli, concurrency.WithTTL(2), concurrency.WithContext(ctx))
	if err != nil {
		return
	}
	defer session.Close()
	m := concurrency.NewMutex(session, "lock/")
	if m.Lock(ctx) != nil {
		return
	}
	resp, err := cli.Get(ctx, "count")
	if err != nil {
		return
	}
	value := "x"
	if len(resp.Kvs) > 0 {
		value = string(resp.Kvs[0].Value) + "x"
	}
	done, err := cli.Txn(ctx).If(m.IsOwner()).Then(clientv3.OpPut("count", value), clientv3.OpPut(fmt.Sprint("counted/", len(value)), m.Key())).Commit()
	if err == nil && done.Succeeded {
		x.counted++
	}
	_ = m.Unlock(ctx)
}

// checkCount: had two holders counted at a time, one count would have been made twice.
func (x *chaos) checkCount() {
	ctx := harness.Context(x.t)
	resp, err := x.clients[0].Get(ctx, "counted/", clientv3.WithPrefix())
	check(x.t, err)
	count, err := x.clients[0].Get(ctx, "count")
	check(x.t, err)
	if len(count.Kvs) > 0 && len(count.Kvs[0].Value) != len(resp.Kvs) || len(resp.Kvs) < x.counted {
		x.t.Errorf("%d sections were counted, %d are recorded, %d were acknowledged", len(count.Kvs[0].Value), len(resp.Kvs), x.counted)
	}
	for _, kv := range resp.Kvs {
		if kv.Version != 1 {
			x.t.Errorf("%s was counted %d times", kv.Key, kv.Version)
		}
	}
}

// same compares what the members hold.
func (x *chaos) same(revision int64) {
	x.t.Helper()
	ctx := harness.Context(x.t)
	var want uint32
	for i, s := range x.c.Servers {
		_, err := x.clients[i].Get(ctx, "k/last") // so that it has applied everything
		check(x.t, err)
		h, err := x.clients[i].HashKV(ctx, s.Endpoint, revision)
		check(x.t, err)
		if i == 0 {
			want = h.Hash
		} else if h.Hash != want {
			x.t.Errorf("m%d has the hash %x at revision %d, m1 has %x", i+1, h.Hash, revision, want)
		}
	}
}
