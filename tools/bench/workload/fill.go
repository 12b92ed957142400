package workload

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"quire/tools/bench/client"
)

const (
	// fillWorkers keeps the server's log busy without queueing deeply.
	fillWorkers = 16
	// fillBytes bounds one transaction below etcd's request limit of 1.5 MiB.
	fillBytes = 1 << 20
)

// fill writes every key of the space once, LoadBatch keys per transaction, and
// notes the revision of each.
func (t *target) fill(ctx context.Context) error {
	t.mods = make([]int64, t.spec.Keys)
	batch := max(1, min(t.spec.LoadBatch, fillBytes/(t.spec.KeyBytes+t.spec.ValueBytes)))
	var next atomic.Int64
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	for i := range fillWorkers {
		w := t.newWorker(i)
		workers.Go(func() {
			for ctx.Err() == nil {
				first := int(next.Add(int64(batch))) - batch
				if first >= t.spec.Keys {
					return
				}
				if err := w.fillBatch(ctx, first, min(first+batch, t.spec.Keys)); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// fillBatch puts the keys from first to before in one transaction.
func (w *worker) fillBatch(ctx context.Context, first, before int) error {
	var req pb.TxnRequest
	for n := first; n < before; n++ {
		put := &pb.PutRequest{Key: w.keys.append(nil, int64(n)), Value: w.values.take()}
		req.Success = append(req.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
	}
	method, m := pb.KV_Txn_FullMethodName, proto.Message(&req)
	if before-first == 1 { // a plain put, so that a batch of one is a revision and an entry per key
		method, m = pb.KV_Put_FullMethodName, req.Success[0].GetRequestPut()
	}
	var reply client.PutReply
	if err := w.call(ctx, method, m, &reply); err != nil {
		return fmt.Errorf("keys %d to %d: %w", first, before-1, err)
	}
	for n := first; n < before; n++ {
		w.mods[n] = reply.Revision
	}
	return nil
}
