package cluster

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
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
	members []uint64
	clients []*clientv3.Client // one of each member
	h       *history
	counted int // sections that lock holders left in order
}

// TestChaos: members are killed, paused and cut off while clients write, read, watch and lock. Whatever was acknowledged
// holds: the history is linearizable, watches are complete and in order, and in the end all members have the same.
func TestChaos(t *testing.T) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			seed := *chaosSeed
			if seed == 0 {
				seed = uint64(time.Now().UnixNano())
			}
			t.Logf("again with: go test ./cluster -run 'TestChaos/%d' -seed %d -chaos %v", n, seed, *chaosTime)
			x := &chaos{t: t, random: rand.New(rand.NewPCG(seed, uint64(n))), h: newHistory()}
			x.c = harness.StartCluster(t, n, "--heartbeat-interval=50", "--election-timeout=500", "--snapshot-count=200", "--snapshot-catchup-entries=100")
			x.members = ids(t, x.c.Servers...)
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
	x.c.Net.Heal()
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
	t.Logf("%d operations, %d with a known outcome; %d changes; %d locked sections", len(x.h.mu.ops), known, len(ws[0].changes()), x.counted)
	if known < 100 {
		t.Errorf("only %d operations were answered", known)
	}
}

// fault does one bad thing, lets it last, and mends it.
func (x *chaos) fault() {
	n := len(x.c.Servers)
	i := x.random.IntN(n)
	if x.random.IntN(2) == 0 {
		if lead := x.leading(); lead >= 0 {
			i = lead
		}
	}
	s := x.c.Servers[i]
	lasts := func() { time.Sleep(time.Duration(100+x.random.IntN(1500)) * time.Millisecond) }
	switch k := x.random.IntN(16); {
	case k < 4:
		s.Kill()
		lasts()
		s.Restart(x.t)
	case k < 7:
		check(x.t, s.Signal(syscall.SIGSTOP))
		lasts()
		check(x.t, s.Signal(syscall.SIGCONT))
	case k < 10:
		x.c.Net.Isolate(x.members[i:i+1], x.without(i))
		lasts()
		x.c.Net.Heal()
	case k < 12: // it hears nobody, or nobody hears it
		for _, other := range x.without(i) {
			if k == 10 {
				x.c.Net.Cut(x.members[i], other)
			} else {
				x.c.Net.Cut(other, x.members[i])
			}
		}
		lasts()
		x.c.Net.Heal()
	case k < 13:
		x.c.Net.Break()
	case k < 14:
		var restarts sync.WaitGroup
		for _, s := range x.c.Servers {
			s.Kill()
		}
		for _, s := range x.c.Servers {
			restarts.Go(func() { s.Restart(x.t) })
		}
		restarts.Wait()
	case k < 15:
		s.Stop(x.t)
		s.Restart(x.t)
	default: // as many as may fail together
		down := x.random.Perm(n)[:(n-1)/2]
		for _, j := range down {
			x.c.Servers[j].Kill()
		}
		lasts()
		var restarts sync.WaitGroup
		for _, j := range down {
			restarts.Go(func() { x.c.Servers[j].Restart(x.t) })
		}
		restarts.Wait()
	}
	time.Sleep(time.Duration(x.random.IntN(800)) * time.Millisecond)
}

func (x *chaos) without(i int) (others []uint64) {
	for j, id := range x.members {
		if j != i {
			others = append(others, id)
		}
	}
	return others
}

// leading is the place of a member that says that it leads, -1 if none does.
func (x *chaos) leading() int {
	for i, cli := range x.clients {
		ctx, cancel := context.WithTimeout(x.t.Context(), 500*time.Millisecond)
		st, err := cli.Status(ctx, x.c.Servers[i].Endpoint)
		cancel()
		if err == nil && st.Leader == x.members[i] {
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
