package workload

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"quire/tools/bench/client"
	"quire/tools/bench/loop"
)

func rangeStep(serializable bool) func(*worker) loop.Step {
	return func(w *worker) loop.Step {
		req := pb.RangeRequest{Serializable: serializable}
		var reply client.RangeReply
		return func(ctx context.Context) (int64, error) {
			w.key = w.keys.append(w.key[:0], w.rng.Int64N(int64(w.spec.Keys)))
			req.Key = w.key
			if err := w.call(ctx, pb.KV_Range_FullMethodName, &req, &reply); err != nil {
				return 0, err
			}
			if reply.Kvs != 1 {
				return 0, fmt.Errorf("range of %s gave %d pairs", w.key, reply.Kvs)
			}
			return 1, nil
		}
	}
}

// listStep reads the whole key space page by page, as Kubernetes does: the
// first page at the current revision, the others at the revision of the first.
// Workers start on different pages.
func listStep(w *worker) loop.Step {
	pages := (w.spec.Keys + w.spec.Page - 1) / w.spec.Page
	req := pb.RangeRequest{RangeEnd: w.keys.end(), Limit: int64(w.spec.Page)}
	var reply client.RangeReply
	page := w.index % pages
	return func(ctx context.Context) (int64, error) {
		first := page * w.spec.Page
		w.key = w.keys.append(w.key[:0], int64(first))
		req.Key = w.key
		if err := w.call(ctx, pb.KV_Range_FullMethodName, &req, &reply); err != nil {
			req.Revision = 0
			return 0, err
		}
		left := w.spec.Keys - first
		if reply.Kvs != min(left, w.spec.Page) || reply.Count != int64(left) || reply.More != (left > w.spec.Page) {
			return 0, fmt.Errorf("page at key %d has %d pairs, count %d, more %t; %d keys are left", first, reply.Kvs, reply.Count, reply.More, left)
		}
		if page++; page == pages {
			page, req.Revision = 0, 0
		} else if req.Revision == 0 {
			req.Revision = reply.Revision
		}
		return int64(reply.Kvs), nil
	}
}
