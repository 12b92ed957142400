package realclient

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// receive takes the next response of a clientv3 watch.
func receive(t *testing.T, ch clientv3.WatchChan) clientv3.WatchResponse {
	t.Helper()
	select {
	case resp, ok := <-ch:
		if !ok {
			t.Fatal("the watch channel is closed")
		}
		return resp
	case <-time.After(arriveLimit):
		t.Fatalf("nothing on the watch channel within %v", arriveLimit)
	}
	return clientv3.WatchResponse{}
}

func TestClientWatchOptions(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	ch := c.Watch(s.ctx, "a/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify(), clientv3.WithFragment(),
		clientv3.WithFilterDelete(), clientv3.WithProgressNotify())
	equal(t, "created", receive(t, ch).Created, true)
	mustPut(t, s.kv, put("a/1", "1"))
	mustDel(t, s.kv, del("a/1", ""))
	mustPut(t, s.kv, put("a/1", "2"))
	equal(t, "first", eventText(receive(t, ch).Events[0]), "put a/1=1(2,2,1)")
	equal(t, "second", eventText(receive(t, ch).Events[0]), "put a/1=2(4,4,1)")
	check(t, c.RequestProgress(s.ctx))
	progress := receive(t, ch)
	equal(t, "progress", progress.IsProgressNotify(), true)
	equal(t, "progress revision", progress.Header.Revision, int64(4))
}

func TestClientWatchOfACompactedRevision(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	for i := range 5 {
		mustPut(t, s.kv, put("k", fmt.Sprint(i)))
	}
	mustCompact(t, s.kv, 4)
	resp := receive(t, c.Watch(s.ctx, "k", clientv3.WithRev(2)))
	equal(t, "canceled", resp.Canceled, true)
	equal(t, "compact revision", resp.CompactRevision, int64(4))
	equal(t, "error", errors.Is(resp.Err(), rpctypes.ErrCompacted), true)
}

func TestClientWatchResumesAfterARestart(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	ch := c.Watch(clientv3.WithRequireLeader(s.ctx), "k", clientv3.WithPrefix())
	next := int64(2)
	takeTo := func(last int64) {
		t.Helper()
		for next <= last {
			resp := receive(t, ch)
			check(t, resp.Err())
			for _, e := range resp.Events {
				equal(t, "revision", e.Kv.ModRevision, next)
				next = e.Kv.ModRevision + 1
			}
		}
	}
	mustPut(t, s.kv, put("k1", "1"))
	mustPut(t, s.kv, put("k2", "1"))
	takeTo(3)
	s.Kill()
	s.Restart(t)
	for i := range 10 {
		_, err := c.Put(s.ctx, fmt.Sprintf("k%d", i), "2")
		check(t, err)
	}
	takeTo(13)
}

func TestClientWatchersShareAStreamAndAreCancelledOneByOne(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	const n = 30
	cancels := make([]context.CancelFunc, n)
	chans := make([]clientv3.WatchChan, n)
	for i := range n {
		ctx, cancel := context.WithCancel(s.ctx)
		cancels[i], chans[i] = cancel, c.Watch(ctx, "k", clientv3.WithCreatedNotify())
		equal(t, "created", receive(t, chans[i]).Created, true)
	}
	for i := 0; i < n; i += 2 {
		cancels[i]()
	}
	mustPut(t, s.kv, put("k", "1"))
	for i := 1; i < n; i += 2 {
		equal(t, "event", receive(t, chans[i]).Events[0].Kv.ModRevision, int64(2))
		cancels[i]()
	}
	eventually(t, "the server has forgotten all watchers", func() bool { return metric(t, s.Server, "etcd_debugging_mvcc_watcher_total") == 0 })
}
