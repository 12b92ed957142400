package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// op is one operation of a client on one key.
type op struct {
	kind     string // put, get, delete, cas
	key      string
	old, new string
}

// outcome is what the client was told. "" is the value of a key that is not there.
type outcome struct {
	known    bool // false: an error, after which the operation may have been carried out or not, or will be
	ok       bool // of a cas
	value    string
	revision int64
}

// register is the model of one key: its value.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(op).key
			byKey[key] = append(byKey[key], o)
		}
		var parts [][]porcupine.Operation
		for _, p := range byKey {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		have, o, out := state.(string), input.(op), output.(outcome)
		switch o.kind {
		case "get":
			return !out.known || out.value == have, have
		case "put":
			return true, o.new
		case "delete":
			return true, ""
		}
		if have == o.old {
			return !out.known || out.ok, o.new
		}
		return !out.known || !out.ok && out.value == have, have
	},
	DescribeOperation: func(input, output any) string {
		o, out := input.(op), output.(outcome)
		return fmt.Sprintf("%s %s %q→%q: %+v", o.kind, o.key, o.old, o.new, out)
	},
}

// history is what all clients did and saw.
type history struct {
	start time.Time
	mu    struct {
		sync.Mutex
		ops    []porcupine.Operation
		issued map[string]bool // values that were ever to be written
	}
}

func newHistory() *history {
	h := &history{start: time.Now()}
	h.mu.issued = map[string]bool{"": true}
	return h
}

func (h *history) now() int64 { return int64(time.Since(h.start)) }

func (h *history) issue(value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.issued[value] = true
}

func (h *history) add(client int, o op, call int64, out outcome) {
	end := h.now()
	if !out.known {
		end = 1 << 62 // it may happen at any time from now on
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.ops = append(h.mu.ops, porcupine.Operation{ClientId: client, Input: o, Call: call, Output: out, Return: end})
}

// check looks for an order in which the operations could have happened one after the other.
func (h *history) check(t *testing.T) (known int) {
	h.mu.Lock()
	ops := h.mu.ops
	h.mu.Unlock()
	for _, o := range ops {
		if o.Output.(outcome).known {
			known++
		}
	}
	const limit = 2 * time.Minute
	result, info := porcupine.CheckOperationsVerbose(register, ops, limit)
	switch result {
	case porcupine.Illegal:
		path := t.TempDir() + "/history.html"
		if err := porcupine.VisualizePath(register, info, path); err == nil {
			t.Logf("the history is drawn in %s", path)
		}
		t.Errorf("the history of %d operations is not linearizable", len(ops))
	case porcupine.Unknown:
		t.Errorf("linearizability of %d operations was not decided within %v", len(ops), limit)
	}
	return known
}

// worker is one client in a closed loop; its operations go to one member after the other.
type worker struct {
	id      int
	h       *history
	clients []*clientv3.Client // one of each member
	random  *rand.Rand
	n       int
}

// opLimit is how long a client waits for an answer.
const opLimit = 8 * time.Second

const historyKeys = 6

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.one(ctx)
		time.Sleep(time.Duration(w.random.IntN(4)) * time.Millisecond)
	}
}

func (w *worker) one(ctx context.Context) {
	cli := w.clients[w.random.IntN(len(w.clients))]
	o := op{key: fmt.Sprint("k/", w.random.IntN(historyKeys))}
	w.n++
	fresh := fmt.Sprintf("%d-%d", w.id, w.n)
	ctx, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	call := w.h.now()
	var out outcome
	var err error
	switch k := w.random.IntN(10); {
	case k < 4:
		o.kind = "get"
		out, err = read(ctx, cli, o.key)
	case k < 7:
		o.kind, o.new = "put", fresh
		w.h.issue(fresh)
		var resp *clientv3.PutResponse
		if resp, err = cli.Put(ctx, o.key, o.new); err == nil {
			out.revision = resp.Header.Revision
		}
	case k < 8:
		o.kind = "delete"
		var resp *clientv3.DeleteResponse
		if resp, err = cli.Delete(ctx, o.key); err == nil && resp.Deleted > 0 {
			out.revision = resp.Header.Revision
		}
	default:
		seen, rerr := read(ctx, cli, o.key)
		if rerr != nil || seen.value == "" {
			return
		}
		call = w.h.now()
		o.kind, o.old, o.new = "cas", seen.value, fresh
		w.h.issue(fresh)
		out, err = swap(ctx, cli, o)
	}
	out.known = err == nil
	w.h.add(w.id, o, call, out)
	if err != nil {
		time.Sleep(time.Duration(w.random.IntN(50)) * time.Millisecond)
	}
}

func read(ctx context.Context, cli *clientv3.Client, key string) (out outcome, err error) {
	resp, err := cli.Get(ctx, key)
	if err == nil && len(resp.Kvs) > 0 {
		out.value = string(resp.Kvs[0].Value)
	}
	return out, err
}

func swap(ctx context.Context, cli *clientv3.Client, o op) (out outcome, err error) {
	resp, err := cli.Txn(ctx).If(clientv3.Compare(clientv3.Value(o.key), "=", o.old)).
		Then(clientv3.OpPut(o.key, o.new)).Else(clientv3.OpGet(o.key)).Commit()
	if err != nil {
		return out, err
	}
	if out.ok = resp.Succeeded; out.ok {
		out.revision = resp.Header.Revision
	} else if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		out.value = string(kvs[0].Value)
	}
	return out, nil
}
