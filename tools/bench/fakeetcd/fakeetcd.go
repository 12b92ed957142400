package fakeetcd

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"sort"
	"sync"
	"syscall"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// Server is the fake.
type Server struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer

	mu       sync.Mutex
	revision int64
	kvs      map[string]*mvccpb.KeyValue
	leases   int64
	watchers map[int64]*watcher
	watches  int64
}

type watcher struct {
	key, end string
	out      chan<- *pb.WatchResponse
}

// watchBacklog bounds what a watch stream may lag behind; then it loses events.
const watchBacklog = 1 << 16

// New is an empty fake.
func New() *Server {
	return &Server{revision: 1, kvs: map[string]*mvccpb.KeyValue{}, watchers: map[int64]*watcher{}}
}

// Serve serves on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer()
	pb.RegisterKVServer(g, s)
	pb.RegisterWatchServer(g, s)
	pb.RegisterLeaseServer(g, s)
	defer context.AfterFunc(ctx, g.Stop)()
	return g.Serve(l)
}

// Main behaves like an etcd binary with the flags that the benchmark gives,
// keeps what it was given in memory and its data directory nearly empty.
func Main(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("fakeetcd", flag.ContinueOnError)
	version := fs.Bool("version", false, "")
	dir := fs.String("data-dir", "", "")
	listen := fs.String("listen-client-urls", "", "")
	for _, ignored := range []string{"name", "advertise-client-urls", "listen-peer-urls", "initial-advertise-peer-urls", "initial-cluster", "initial-cluster-state", "quota-backend-bytes", "log-level"} {
		fs.String(ignored, "", "")
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *version {
		_, err := fmt.Fprintln(out, "etcd Version: 3.7.0-fake")
		return err
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(*dir+"/db", make([]byte, 8192), 0o600); err != nil {
		return err
	}
	u, err := url.Parse(*listen)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", u.Host)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return New().Serve(ctx, l)
}

func (s *Server) headerLocked() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: s.revision} }

// Put implements KVServer.
func (s *Server) Put(_ context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	s.putLocked(r)
	return &pb.PutResponse{Header: s.headerLocked()}, nil
}

func (s *Server) putLocked(r *pb.PutRequest) {
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, Lease: r.Lease, CreateRevision: s.revision, ModRevision: s.revision, Version: 1}
	if old := s.kvs[string(r.Key)]; old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	s.kvs[string(r.Key)] = kv
	for id, w := range s.watchers {
		if w.key <= string(r.Key) && string(r.Key) < w.end {
			select {
			case w.out <- &pb.WatchResponse{Header: s.headerLocked(), WatchId: id, Events: []*mvccpb.Event{{Type: mvccpb.Event_PUT, Kv: kv}}}:
			default:
			}
		}
	}
}

// Range implements KVServer.
func (s *Server) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rangeLocked(r), nil
}

func (s *Server) rangeLocked(r *pb.RangeRequest) *pb.RangeResponse {
	res := &pb.RangeResponse{Header: s.headerLocked()}
	if len(r.RangeEnd) == 0 {
		if kv := s.kvs[string(r.Key)]; kv != nil {
			res.Kvs, res.Count = []*mvccpb.KeyValue{kv}, 1
		}
		return res
	}
	for key, kv := range s.kvs {
		if key >= string(r.Key) && key < string(r.RangeEnd) {
			res.Kvs = append(res.Kvs, kv)
		}
	}
	sort.Slice(res.Kvs, func(i, j int) bool { return string(res.Kvs[i].Key) < string(res.Kvs[j].Key) })
	res.Count = int64(len(res.Kvs))
	if r.Limit > 0 && res.Count > r.Limit {
		res.Kvs, res.More = res.Kvs[:r.Limit], true
	}
	return res
}

// Txn implements KVServer for transactions whose compares are on mod revisions.
func (s *Server) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := &pb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		res.Succeeded = res.Succeeded && s.kvs[string(c.Key)].GetModRevision() == c.GetModRevision()
	}
	ops := r.Success
	if !res.Succeeded {
		ops = r.Failure
	} else {
		s.revision++
	}
	for _, op := range ops {
		if put := op.GetRequestPut(); put != nil {
			s.putLocked(put)
			res.Responses = append(res.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}})
		} else {
			res.Responses = append(res.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: s.rangeLocked(op.GetRequestRange())}})
		}
	}
	res.Header = s.headerLocked()
	return res, nil
}

// LeaseGrant implements LeaseServer.
func (s *Server) LeaseGrant(_ context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases++
	return &pb.LeaseGrantResponse{Header: s.headerLocked(), ID: s.leases, TTL: r.TTL}, nil
}

// LeaseRevoke implements LeaseServer.
func (s *Server) LeaseRevoke(_ context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, kv := range s.kvs {
		if kv.Lease == r.ID {
			delete(s.kvs, key)
		}
	}
	s.revision++
	return &pb.LeaseRevokeResponse{Header: s.headerLocked()}, nil
}

// Watch implements WatchServer.
func (s *Server) Watch(stream grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]) error {
	out := make(chan *pb.WatchResponse, watchBacklog)
	var mine []int64
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, id := range mine {
			delete(s.watchers, id)
		}
	}()
	go func() {
		for {
			select {
			case res := <-out:
				if stream.Send(res) != nil {
					return
				}
			case <-stream.Context().Done():
				return
			}
		}
	}()
	for {
		req, err := stream.Recv()
		if err != nil {
			return nil // the client has gone
		}
		create := req.GetCreateRequest()
		if create == nil {
			continue
		}
		s.mu.Lock()
		s.watches++
		id := s.watches
		mine = append(mine, id)
		s.watchers[id] = &watcher{key: string(create.Key), end: string(create.RangeEnd), out: out}
		out <- &pb.WatchResponse{Header: s.headerLocked(), WatchId: id, Created: true}
		s.mu.Unlock()
	}
}
