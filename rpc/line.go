package rpc

import (
	"context"
	"errors"
	"strconv"

	pb "quire/api/etcdserverpb"
	"quire/api/mvccpb"
)

// line is what locks and elections are made of: the keys under a prefix in the
// order of their creation, each attached to the lease of whoever queues there.
// The first one holds the lock or leads. It is clientv3's recipe, done here on
// behalf of clients that have none, by calls of the server's own methods in the
// client's name; so whatever these refuse is refused, and mixed use with the
// recipe works.
type line struct {
	srv    *Server
	ctx    context.Context
	prefix []byte
}

func (s *Server) newLine(ctx context.Context, name []byte) line {
	return line{srv: s, ctx: ctx, prefix: append(append([]byte(nil), name...), '/')}
}

// place is the key of a lease in the line.
func (l line) place(lease int64) []byte {
	return strconv.AppendInt(l.prefix[:len(l.prefix):len(l.prefix)], lease, 16)
}

// sessionTTL is the life of a lease that a client did not bring itself. Nobody
// renews it here: that is the client's part.
const sessionTTL = 60

// session returns the lease to queue with: the client's, or a new one.
func (s *Server) session(ctx context.Context, lease int64) (int64, error) {
	if lease != 0 {
		return lease, nil
	}
	var resp pb.LeaseGrantResponse
	err := s.ask(ctx, "/"+leaseService+"/LeaseGrant", &pb.LeaseGrantRequest{TTL: sessionTTL}, &resp)
	return resp.ID, err
}

// ask calls one of the server's own methods in the name of whoever ctx belongs
// to.
func (s *Server) ask(ctx context.Context, method string, req request, resp interface{ UnmarshalVT([]byte) error }) error {
	b, err := req.MarshalVT()
	if err != nil {
		return err
	}
	if b, err = s.Invoke(ctx, method, b); err != nil {
		return err
	}
	return resp.UnmarshalVT(b)
}

// afterwards is the context in which something is put in order that a caller
// left who is gone: the caller's rights without the caller's end. The request
// timeout bounds each call made with it.
func afterwards(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

// ifCreated runs operations in one transaction if key was created at rev (0: if
// it does not exist) and others if not.
func (l line) ifCreated(ctx context.Context, key []byte, rev int64, then, otherwise []*pb.RequestOp) (*pb.TxnResponse, error) {
	req := &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev},
		}},
		Success: then, Failure: otherwise,
	}
	resp := &pb.TxnResponse{}
	return resp, l.srv.ask(ctx, "/"+kvService+"/Txn", req, resp)
}

func putOp(key, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value, Lease: lease}}}
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func deleteOp(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
}

// rangeOf returns the keys that operation i of a transaction has read.
func rangeOf(r *pb.TxnResponse, i int) []*mvccpb.KeyValue {
	if i >= len(r.Responses) {
		return nil
	}
	return r.Responses[i].GetResponseRange().GetKvs()
}

func (l line) read(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	resp := &pb.RangeResponse{}
	return resp, l.srv.ask(l.ctx, rangeFullName, r, resp)
}

// first is the request for the key that was created first.
func (l line) first() *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: l.prefix, RangeEnd: prefixEnd(l.prefix), Limit: 1,
		SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND,
	}
}

// prefixEnd is the end of the range of all keys with a prefix. The prefixes of
// lines end with a slash.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	return end
}

// awaitTurn returns when all keys in the line that were created before rev are
// gone. Each one that waits watches only the key in front of it, so that the
// end of one wakes one.
func (l line) awaitTurn(rev int64) error {
	for {
		resp, err := l.read(&pb.RangeRequest{
			Key: l.prefix, RangeEnd: prefixEnd(l.prefix), Limit: 1, MaxCreateRevision: rev - 1,
			SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_DESCEND,
		})
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		ahead := &pb.WatchCreateRequest{
			Key: resp.Kvs[0].Key, StartRevision: resp.Header.Revision + 1,
			Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT},
		}
		err = l.watch(ahead, func(*mvccpb.Event) (bool, error) { return true, nil })
		if err != nil && !errors.Is(err, errWatchCompacted) {
			return err
		}
	}
}

// errWatchCompacted is how a watch ends whose start was compacted before it
// began. Whoever looks at the keys again is up to date.
var errWatchCompacted = errors.New("rpc: the start of the watch was compacted")

// watch gives the events of a range to do until it is done.
func (l line) watch(create *pb.WatchCreateRequest, do func(*mvccpb.Event) (done bool, err error)) error {
	w, err := l.srv.openLocal(l.ctx, l.srv.byName["/"+watchService+"/Watch"])
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return err
	}
	for {
		msg, err := w.recv()
		if err != nil {
			return err
		}
		var resp pb.WatchResponse
		if err := resp.UnmarshalVT(msg); err != nil {
			return err
		}
		for _, ev := range resp.Events {
			if done, err := do(ev); done || err != nil {
				return err
			}
		}
		switch {
		case resp.CompactRevision != 0:
			return errWatchCompacted
		case resp.Canceled:
			return errors.New(resp.CancelReason)
		}
	}
}
