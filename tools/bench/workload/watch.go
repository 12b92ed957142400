package workload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"quire/tools/bench/client"
	"quire/tools/bench/loop"
)

// stampBytes in front of a watched value: u32 worker, u32 sequence of that
// worker, both little-endian.
const stampBytes = 8

// fanout counts the deliveries of each put to all watchers.
type fanout struct {
	watchers int64
	slots    []slot // one per worker
	cancel   context.CancelFunc
	readers  sync.WaitGroup

	failure atomic.Pointer[error] // of a watch stream; ends the workload
}

// slot is the put that a worker waits for.
type slot struct {
	sequence  atomic.Uint32
	remaining atomic.Int64
	done      chan struct{} // capacity 1
	_         [40]byte      // a cache line to each worker
}

// openWatch creates the watchers, spread over the streams, and waits until all
// of them exist.
func openWatch(ctx context.Context, t *target) error {
	f := &fanout{watchers: int64(t.spec.Watchers), slots: make([]slot, t.spec.Workers())}
	for i := range f.slots {
		f.slots[i].done = make(chan struct{}, 1)
	}
	t.fanout = f
	ctx, f.cancel = context.WithCancel(ctx)
	created := make(chan error, t.spec.WatchStreams)
	for i := range t.spec.WatchStreams {
		n := t.spec.Watchers / t.spec.WatchStreams
		if i < t.spec.Watchers%t.spec.WatchStreams {
			n++
		}
		f.readers.Go(func() { f.stream(ctx, t, stream{index: i, watchers: n, created: created}) })
	}
	var errs []error
	for range t.spec.WatchStreams {
		errs = append(errs, <-created)
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, f.close())
	}
	return nil
}

// stream is one watch stream with its share of the watchers.
type stream struct {
	index, watchers int
	created         chan<- error // told once, when all watchers exist or cannot
}

// stream runs one stream until ctx ends.
func (f *fanout) stream(ctx context.Context, t *target, s stream) {
	w, err := f.create(ctx, t, s)
	s.created <- err
	if err != nil {
		return
	}
	reply := client.WatchReply{OnEvent: f.deliver}
	for {
		err := w.Receive(&reply)
		if err == nil && reply.Canceled {
			err = fmt.Errorf("watcher %d was cancelled: %s (compact revision %d)", reply.WatchID, reply.Reason, reply.CompactRevision)
		}
		if err != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("watch stream %d: %w", s.index, err)
				f.failure.CompareAndSwap(nil, &err)
			}
			return
		}
	}
}

// create opens the stream and its watchers. Requests go out while the answers
// come in, because a server may stop reading while it cannot send.
func (f *fanout) create(ctx context.Context, t *target, s stream) (*client.WatchStream, error) {
	w, err := client.OpenWatch(ctx, t.pool.Conn(s.index))
	if err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() {
		req := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(t.keys.prefix), RangeEnd: t.keys.end(), PrevKv: t.spec.PrevKV,
		}}}
		for range s.watchers {
			if err := w.Send(req); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	var reply client.WatchReply
	for n := 0; n < s.watchers; {
		if err := w.Receive(&reply); err != nil {
			return nil, fmt.Errorf("watch stream %d after %d of %d watchers: %w", s.index, n, s.watchers, err)
		}
		if reply.Canceled {
			return nil, fmt.Errorf("watcher was refused: %s", reply.Reason)
		}
		if reply.Created {
			n++
		}
	}
	return w, <-sent
}

// deliver counts one event.
func (f *fanout) deliver(value []byte) {
	if len(value) < stampBytes {
		return // not ours
	}
	worker := binary.LittleEndian.Uint32(value)
	if int(worker) >= len(f.slots) {
		return
	}
	s := &f.slots[worker]
	if binary.LittleEndian.Uint32(value[4:]) != s.sequence.Load() {
		return // of a put that was given up
	}
	if s.remaining.Add(-1) == 0 {
		select {
		case s.done <- struct{}{}:
		default: // nobody took the last one: its put failed after its events came
		}
	}
}

// close ends the streams.
func (f *fanout) close() error {
	f.cancel()
	f.readers.Wait()
	return nil
}

// watchStep puts a key and waits until every watcher has seen it.
func watchStep(w *worker) loop.Step {
	f := w.fanout
	s := &f.slots[w.index]
	value := make([]byte, w.spec.ValueBytes)
	var req pb.PutRequest
	var reply client.PutReply
	return func(ctx context.Context) (int64, error) {
		if err := f.failure.Load(); err != nil {
			return 0, *err
		}
		select {
		case <-s.done: // left over from a put that failed after its events came
		default:
		}
		copy(value, w.values.take())
		s.remaining.Store(f.watchers)
		binary.LittleEndian.PutUint32(value, uint32(w.index))
		binary.LittleEndian.PutUint32(value[4:], s.sequence.Add(1))
		w.key = w.keys.append(w.key[:0], w.rng.Int64N(int64(w.spec.Keys)))
		req.Key, req.Value = w.key, value
		if err := w.call(ctx, pb.KV_Put_FullMethodName, &req, &reply); err != nil {
			return 0, err
		}
		select {
		case <-s.done:
			return f.watchers, nil
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d watchers did not see revision %d: %w", s.remaining.Load(), f.watchers, reply.Revision, ctx.Err())
		}
	}
}
