package workload

import (
	"context"
	"fmt"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"quire/tools/bench/client"
	"quire/tools/bench/loop"
)

// putStep puts any key; beside updates, which know the revision of each key,
// one of the worker's own.
func putStep(w *worker) loop.Step {
	var req pb.PutRequest
	var reply client.PutReply
	return func(ctx context.Context) (int64, error) {
		n := w.rng.Int64N(int64(w.spec.Keys))
		if w.mods != nil {
			n = w.ownKey()
		}
		w.key = w.keys.append(w.key[:0], n)
		req.Key, req.Value = w.key, w.values.take()
		err := w.call(ctx, pb.KV_Put_FullMethodName, &req, &reply)
		if err == nil && w.mods != nil {
			w.mods[n] = reply.Revision
		}
		return 1, err
	}
}

// fillStep puts each key once. When all are written it goes round again, so a
// run that is limited by time and not by operations also ends.
func fillStep(w *worker) loop.Step {
	var req pb.PutRequest
	var reply client.PutReply
	return func(ctx context.Context) (int64, error) {
		n := (w.filled.Add(1) - 1) % int64(w.spec.Keys)
		w.key = w.keys.append(w.key[:0], n)
		req.Key, req.Value = w.key, w.values.take()
		return 1, w.call(ctx, pb.KV_Put_FullMethodName, &req, &reply)
	}
}

// txn is the one shape in which Kubernetes writes: compare one mod revision,
// put, or else read the key.
type txn struct {
	req     pb.TxnRequest
	compare *pb.Compare_ModRevision
	guard   *pb.Compare
	put     *pb.PutRequest
	get     *pb.RangeRequest
	reply   client.TxnReply
}

func newTxn() *txn {
	t := &txn{compare: &pb.Compare_ModRevision{}, put: &pb.PutRequest{}, get: &pb.RangeRequest{}}
	t.guard = &pb.Compare{Result: pb.Compare_EQUAL, Target: pb.Compare_MOD, TargetUnion: t.compare}
	t.req.Compare = []*pb.Compare{t.guard}
	t.req.Success = []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: t.put}}}
	t.req.Failure = []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: t.get}}}
	return t
}

// run puts value under key if the key's mod revision is mod.
func (t *txn) run(ctx context.Context, w *worker, mod int64) error {
	value := w.values.take()
	t.guard.Key, t.put.Key, t.get.Key = w.key, w.key, w.key
	t.compare.ModRevision, t.put.Value = mod, value
	return w.call(ctx, pb.KV_Txn_FullMethodName, &t.req, &t.reply)
}

func updateStep(w *worker) loop.Step {
	t := newTxn()
	return func(ctx context.Context) (int64, error) {
		n := w.ownKey()
		w.key = w.keys.append(w.key[:0], n)
		if err := t.run(ctx, w, w.mods[n]); err != nil {
			return 0, err
		}
		if !t.reply.Succeeded {
			known := w.mods[n]
			w.mods[n] = t.reply.Mod
			return 0, fmt.Errorf("update of key %d expected mod revision %d, found %d", n, known, t.reply.Mod)
		}
		w.mods[n] = t.reply.Revision
		return 1, nil
	}
}

// freshSpace is new in every run, or creates would find their keys there.
func freshSpace(s Spec) keySpace {
	return newKeySpace("c"+strconv.FormatInt(time.Now().UnixMilli()%(36*36*36*36*36), 36), max(s.KeyBytes, minKeyBytes))
}

func createStep(w *worker) loop.Step {
	t := newTxn()
	return func(ctx context.Context) (int64, error) {
		n := w.created.Add(1)
		w.key = w.fresh.append(w.key[:0], n)
		if err := t.run(ctx, w, 0); err != nil {
			return 0, err
		}
		if !t.reply.Succeeded {
			return 0, fmt.Errorf("create of key %d found it there with mod revision %d", n, t.reply.Mod)
		}
		return 1, nil
	}
}

// leaseSeconds is far longer than a step, so that no lease ends by itself.
const leaseSeconds = 600

// leaseStep uses keys beside the key space, because the revoke deletes them.
func leaseStep(w *worker) loop.Step {
	keys := newKeySpace("l"+strconv.Itoa(w.spec.Keys), w.spec.KeyBytes)
	leases := pb.NewLeaseClient(w.conn)
	var req pb.PutRequest
	var reply client.PutReply
	return func(ctx context.Context) (int64, error) {
		lease, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: leaseSeconds})
		if err != nil {
			return 0, err
		}
		w.key = keys.append(w.key[:0], w.rng.Int64N(int64(w.spec.Keys)))
		req.Key, req.Value, req.Lease = w.key, w.values.take(), lease.ID
		if err := w.call(ctx, pb.KV_Put_FullMethodName, &req, &reply); err != nil {
			return 0, err
		}
		_, err = leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease.ID})
		return 1, err
	}
}
