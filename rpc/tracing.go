package rpc

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	pb "quire/api/etcdserverpb"
)

// This file adds etcd's spans to traces: one within the span that grpc's stats
// handler makes of each call, with what was asked for. Without Config.Tracer none
// of it runs; with it, a call that is not sampled pays for one context.

// spanNames are etcd's.
var spanNames = map[string]string{
	"/etcdserverpb.KV/Range":          "range",
	"/etcdserverpb.KV/RangeStream":    "range_streaming",
	"/etcdserverpb.KV/Put":            "put",
	"/etcdserverpb.KV/DeleteRange":    "delete_range",
	"/etcdserverpb.KV/Txn":            "txn",
	"/etcdserverpb.KV/Compact":        "compact",
	"/etcdserverpb.Lease/LeaseGrant":  "lease_grant",
	"/etcdserverpb.Lease/LeaseRevoke": "lease_revoke",
}

// startSpan begins the span of a request; end with the returned function. It
// returns ctx itself for methods that have none.
func (s *Server) startSpan(ctx context.Context, method string, req []byte) (context.Context, func(error)) {
	name := spanNames[method]
	if name == "" {
		return ctx, func(error) {}
	}
	ctx, span := s.cfg.Tracer.Start(ctx, name)
	if span.IsRecording() {
		span.SetAttributes(spanAttributes(name, req)...)
	}
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// event notes what happens to a proposal.
func (c *Call) event(what string) {
	if c.srv.cfg.Tracer != nil && c.Ctx != nil {
		trace.SpanFromContext(c.Ctx).AddEvent(what)
	}
}

// spanAttributes are etcd's. Values never appear in them.
func spanAttributes(name string, req []byte) []attribute.KeyValue {
	switch name {
	case "range", "range_streaming":
		var r pb.RangeRequest
		if r.UnmarshalVT(req) != nil {
			return nil
		}
		return []attribute.KeyValue{
			attribute.String("range_begin", string(r.Key)), attribute.String("range_end", string(r.RangeEnd)),
			attribute.Int64("rev", r.Revision), attribute.Int64("limit", r.Limit),
			attribute.Bool("count_only", r.CountOnly), attribute.Bool("keys_only", r.KeysOnly),
		}
	case "put":
		var r pb.PutRequest
		if r.UnmarshalVT(req) != nil {
			return nil
		}
		return []attribute.KeyValue{attribute.String("key", string(r.Key))}
	case "delete_range":
		var r pb.DeleteRangeRequest
		if r.UnmarshalVT(req) != nil {
			return nil
		}
		return []attribute.KeyValue{attribute.String("range_begin", string(r.Key)), attribute.String("range_end", string(r.RangeEnd))}
	case "txn":
		var r pb.TxnRequest
		if r.UnmarshalVT(req) != nil {
			return nil
		}
		return txnAttributes(&r)
	case "compact":
		var r pb.CompactionRequest
		if r.UnmarshalVT(req) != nil {
			return nil
		}
		return []attribute.KeyValue{attribute.Bool("is_physical", r.Physical), attribute.Int64("rev", r.Revision)}
	case "lease_grant":
		var r pb.LeaseGrantRequest
		if r.UnmarshalVT(req) != nil {
			return nil
		}
		return []attribute.KeyValue{attribute.Int64("id", r.ID), attribute.Int64("ttl", r.TTL)}
	case "lease_revoke":
		var r pb.LeaseRevokeRequest
		if r.UnmarshalVT(req) != nil {
			return nil
		}
		return []attribute.KeyValue{attribute.Int64("id", r.ID)}
	}
	return nil
}

func txnAttributes(r *pb.TxnRequest) []attribute.KeyValue {
	compared := ""
	for _, c := range r.Compare {
		if compared == "" {
			compared = string(c.Key)
		}
	}
	key, kind, lease := firstOps(r.Success)
	readOnly, _ := classifyTxn(r)
	return []attribute.KeyValue{
		attribute.String("compare_first_key", compared),
		attribute.String("success_first_key", key), attribute.String("success_first_type", kind), attribute.Int64("success_first_lease", lease),
		attribute.Int("compare_len", len(r.Compare)), attribute.Int("success_len", len(r.Success)), attribute.Int("failure_len", len(r.Failure)),
		attribute.Bool("read_only", readOnly),
	}
}

// firstOps returns the first key, the first operation's kind and the lease of the
// first put, -1 without one.
func firstOps(ops []*pb.RequestOp) (key, kind string, lease int64) {
	lease = -1
	for _, op := range ops {
		this, k := "", ""
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			this, k = "range", string(op.RequestRange.GetKey())
		case *pb.RequestOp_RequestPut:
			this, k = "put", string(op.RequestPut.GetKey())
			if lease < 0 {
				lease = op.RequestPut.GetLease()
			}
		case *pb.RequestOp_RequestDeleteRange:
			this, k = "delete_range", string(op.RequestDeleteRange.GetKey())
		case *pb.RequestOp_RequestTxn:
			this = "txn"
		}
		if key == "" {
			key = k
		}
		if kind == "" {
			kind = this
		}
	}
	return key, kind, lease
}
