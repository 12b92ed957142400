package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// change is one event as a watcher saw it.
type change struct {
	revision   int64
	key, value string // "": deleted
}

// watcher follows all keys through one member from the first revision on.
type watcher struct {
	name string
	mu   struct {
		sync.Mutex
		seen []change
		at   int64 // the newest revision that was promised to be complete
	}
	fault error
}

func (w *watcher) run(ctx context.Context, cli *clientv3.Client) {
	next := int64(1)
	for ctx.Err() == nil {
		// A watch that ends is begun again behind what was seen, as every client does.
		sub, cancel := context.WithCancel(ctx)
		for resp := range cli.Watch(clientv3.WithRequireLeader(sub), "k/", clientv3.WithPrefix(), clientv3.WithRev(next), clientv3.WithProgressNotify()) {
			if resp.Err() != nil {
				break
			}
			next = max(next, w.take(resp))
		}
		cancel()
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *watcher) take(resp clientv3.WatchResponse) (next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if resp.IsProgressNotify() {
		w.mu.at = max(w.mu.at, resp.Header.Revision)
		return resp.Header.Revision + 1
	}
	for _, e := range resp.Events {
		if n := len(w.mu.seen); n > 0 && e.Kv.ModRevision <= w.mu.at && w.fault == nil {
			w.fault = fmt.Errorf("event of revision %d after %d was complete", e.Kv.ModRevision, w.mu.at)
		}
		c := change{e.Kv.ModRevision, string(e.Kv.Key), string(e.Kv.Value)}
		if e.Type == clientv3.EventTypeDelete {
			c.value = ""
		}
		w.mu.seen = append(w.mu.seen, c)
		next = max(next, e.Kv.ModRevision+1)
	}
	if len(resp.Events) > 0 {
		w.mu.at = max(w.mu.at, next-1)
	}
	return next
}

func (w *watcher) changes() []change {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.seen)
}

// await waits until the watcher has seen a revision.
func (w *watcher) await(t *testing.T, revision int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		w.mu.Lock()
		at := w.mu.at
		w.mu.Unlock()
		if at >= revision {
			return
		}
	}
	t.Errorf("%s has not seen revision %d but %d", w.name, revision, w.mu.at)
}

// checkWatches compares the watchers with each other and with what clients were told.
func (h *history) checkWatches(t *testing.T, ws []*watcher) {
	t.Helper()
	first := ws[0].changes()
	at := map[int64]change{}
	for i, c := range first {
		if i > 0 && c.revision <= first[i-1].revision {
			t.Fatalf("%s saw revision %d after %d", ws[0].name, c.revision, first[i-1].revision)
		}
		at[c.revision] = c
	}
	for _, w := range ws {
		if w.fault != nil {
			t.Errorf("%s: %v", w.name, w.fault)
		}
		if got := w.changes(); !slices.Equal(got, first) {
			t.Errorf("%s saw %d changes, %s %d, and they differ", w.name, len(got), ws[0].name, len(first))
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range first {
		if !h.mu.issued[c.value] {
			t.Errorf("revision %d has a value that nobody wrote: %q", c.revision, c.value)
		}
	}
	for _, o := range h.mu.ops {
		in, out := o.Input.(op), o.Output.(outcome)
		if out.known && out.revision != 0 && at[out.revision] != (change{out.revision, in.key, in.new}) {
			t.Errorf("%s %s=%q was acknowledged at revision %d, the watchers saw %+v there", in.kind, in.key, in.new, out.revision, at[out.revision])
		}
	}
}
