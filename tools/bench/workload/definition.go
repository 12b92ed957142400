package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"quire/tools/bench/client"
	"quire/tools/bench/loop"
)

// definition is one named workload.
type definition struct {
	about    string
	unit     string // what a step moves; "op" if it is the operation itself
	defaults Spec
	fills    bool // the key space is written before the run
	owns     bool // every worker needs keys of its own
	open     func(ctx context.Context, t *target) error
	step     func(w *worker) loop.Step
}

// definitions is the table of all workloads. It is a function's result because
// mixed refers back to the table.
var definitions = table()

func table() map[string]definition {
	return map[string]definition{
		"put":                {about: "Put of a random key", unit: "op", step: putStep},
		"fill":               {about: "Put of each key once, in order", unit: "op", defaults: Spec{Keys: 1_000_000}, step: fillStep},
		"range":              {about: "linearizable Range of one random key", unit: "op", fills: true, step: rangeStep(false)},
		"range-serializable": {about: "serializable Range of one random key", unit: "op", fills: true, step: rangeStep(true)},
		"list": {about: "pages of a list with count, at the revision of its first page", unit: "key", fills: true,
			defaults: Spec{Conns: 2, Streams: 2, Keys: 20_000, Page: 500}, step: listStep},
		"txn-create": {about: "Txn: MOD(key)=0 → put, else range", unit: "op", step: createStep},
		"txn-update": {about: "Txn: MOD(key)=known → put, else range", unit: "op", fills: true, owns: true, step: updateStep},
		"watch": {about: "Put of a key seen by all watchers; ends when the last has its event", unit: "event",
			defaults: Spec{Conns: 10, Streams: 1, Watchers: 1000, WatchStreams: 100}, open: openWatch, step: watchStep},
		"lease": {about: "LeaseGrant, Put with the lease, LeaseRevoke", unit: "op", step: leaseStep},
		"mixed": {about: "operations drawn by weight", unit: "op", fills: true, owns: true,
			defaults: Spec{Keys: 20_000, Page: 500, Mix: Mix{"range": 60, "txn-update": 25, "txn-create": 5, "put": 5, "list": 5}},
			step:     mixedStep},
	}
}

// mixable names the operations that a mix may have.
var mixable = map[string]bool{
	"put": true, "range": true, "range-serializable": true, "list": true, "txn-create": true, "txn-update": true, "lease": true,
}

// Names lists the workloads in order.
func Names() []string {
	var names []string
	for name := range definitions {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// About says in a few words what one operation of the workload is.
func About(name string) string { return definitions[name].about }

// Unit is what a step of the workload moves.
func Unit(name string) string { return definitions[name].unit }

func ownsKeys(s Spec) bool { return definitions[s.Name].owns }

// target is the server under one workload; shared by its workers.
type target struct {
	spec    Spec
	pool    *client.Pool
	keys    keySpace
	mods    []int64      // mod revision of each key; an element belongs to the key's worker
	created atomic.Int64 // keys that txn-create has used
	fresh   keySpace     // where txn-create creates
	filled  atomic.Int64 // keys that fill has written
	fanout  *fanout      // watch only
}

// Load is a workload ready to run.
type Load struct {
	Steps []loop.Step
	Unit  string

	target *target
}

// Open writes the key space if the workload reads it, opens its streams and
// makes its steps. The streams end with ctx or with Close.
func Open(ctx context.Context, spec Spec, pool *client.Pool) (*Load, error) {
	def, ok := definitions[spec.Name]
	if !ok {
		return nil, fmt.Errorf("workload %q is not known", spec.Name)
	}
	t := &target{spec: spec, pool: pool, keys: spaceOf(spec), fresh: freshSpace(spec)}
	if def.fills {
		if err := t.fill(ctx); err != nil {
			return nil, fmt.Errorf("writing the key space of %s: %w", spec.Label(), err)
		}
	}
	if def.open != nil {
		if err := def.open(ctx, t); err != nil {
			return nil, fmt.Errorf("preparing %s: %w", spec.Label(), err)
		}
	}
	l := &Load{Unit: def.unit, target: t}
	for i := range spec.Workers() {
		l.Steps = append(l.Steps, def.step(t.newWorker(i)))
	}
	return l, nil
}

// Close ends the streams of the workload.
func (l *Load) Close() error {
	if l.target.fanout != nil {
		return l.target.fanout.close()
	}
	return nil
}

// worker is what one worker's steps share. It belongs to one goroutine.
type worker struct {
	*target
	index  int
	conn   client.Conn
	rng    *rand.Rand
	values *values
	key    []byte
	body   []byte
}

func (t *target) newWorker(i int) *worker {
	rng := generator(t.spec.Seed, i)
	return &worker{target: t, index: i, conn: t.pool.Conn(i), rng: rng, values: newValues(rng, t.spec.ValueBytes)}
}

// call encodes m into the worker's buffer and makes the call.
func (w *worker) call(ctx context.Context, method string, m proto.Message, reply client.Reply) error {
	body, err := client.Append(w.body[:0], m)
	if err != nil {
		return err
	}
	w.body = body
	if err := client.Call(ctx, w.conn, method, body, reply); err != nil {
		w.body = nil // may still be queued for sending
		return err
	}
	return nil
}

// ownKey draws one of the keys that only this worker writes.
func (w *worker) ownKey() int64 {
	workers := int64(w.spec.Workers())
	own := (int64(w.spec.Keys) - int64(w.index) + workers - 1) / workers
	return w.rng.Int64N(own)*workers + int64(w.index)
}
