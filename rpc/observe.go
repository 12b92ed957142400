package rpc

import (
	pb "quire/api/etcdserverpb"
	"quire/api/mvccpb"
	"quire/api/v3electionpb"
)

// observeSession tells a client who leads an election and what the leader
// proclaims: the first key of the line at first, then every change of that key,
// and when it is deleted the next one.
//
// It watches either the leader's key or, while there is none, the whole line.
// The watch shares the client's stream, so its wakes are this session's.
type observeSession struct {
	stream *Stream
	line   line
	watch  Session // nil: look who leads
	in     Out     // the watch's messages
	leads  bool    // the watch is of a leader's key
	ready  []*mvccpb.KeyValue
	rev    int64 // for the header of the first of ready; 0: its own revision
}

func (s *Server) openObserve(st *Stream) Session { return &observeSession{stream: st} }

func (o *observeSession) Recv(msg []byte) error {
	var r v3electionpb.LeaderRequest
	if err := decode(&msg, &r); err != nil {
		return err
	}
	o.line = o.stream.srv.newLine(o.stream.Ctx, r.Name)
	return nil
}

func (o *observeSession) RecvEnd() bool { return false }

// Next may read, and so wait. What goes wrong ends the stream without an error,
// as in etcd: an observer that still wants to know asks again.
func (o *observeSession) Next(out *Out) (Next, error) {
	for len(o.ready) == 0 {
		if o.watch == nil {
			if err := o.look(); err != nil {
				return NextEnd, nil
			}
			continue
		}
		next, err := o.watch.Next(&o.in)
		if err != nil || next == NextEnd {
			return NextEnd, nil
		}
		if next == NextIdle {
			return NextIdle, nil
		}
		if err := o.take(o.in.Bytes()); err != nil {
			return NextEnd, nil
		}
	}
	kv, rev := o.ready[0], o.rev
	if rev == 0 {
		rev = kv.ModRevision
	}
	o.ready, o.rev = o.ready[1:], 0
	b, err := appendMessage(out.begin(), &v3electionpb.LeaderResponse{Kv: kv})
	out.end(b, o.stream.srv.header.putBefore(b, headerRoom, rev))
	return NextMore, err
}

// look finds the leader and watches from that moment on.
func (o *observeSession) look() error {
	resp, err := o.line.read(o.line.first())
	if err != nil {
		return err
	}
	if len(resp.Kvs) > 0 {
		o.ready, o.rev = resp.Kvs, resp.Header.Revision
		return o.open(resp.Kvs[0].Key, nil, resp.Header.Revision+1)
	}
	return o.open(o.line.prefix, prefixEnd(o.line.prefix), resp.Header.Revision+1)
}

// open watches a leader's key, or the line if there is a range end.
func (o *observeSession) open(key, end []byte, from int64) error {
	o.leads = end == nil
	create := &pb.WatchCreateRequest{Key: key, RangeEnd: end, StartRevision: from}
	b, err := (&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}).MarshalVT()
	if err != nil {
		return err
	}
	o.watch = o.stream.srv.byName["/"+watchService+"/Watch"].Open(o.stream)
	return o.watch.Recv(b)
}

// take handles a message of the watch.
func (o *observeSession) take(msg []byte) error {
	if len(msg) == 0 {
		return nil
	}
	var resp pb.WatchResponse
	if err := resp.UnmarshalVT(msg); err != nil {
		return err
	}
	for _, ev := range resp.Events {
		switch {
		case ev.Type == mvccpb.Event_DELETE && o.leads:
			o.stopWatching()
			return nil
		case ev.Type == mvccpb.Event_DELETE:
		case o.leads:
			o.ready = append(o.ready, ev.Kv)
		default: // the first to come leads
			o.ready = append(o.ready, ev.Kv)
			o.stopWatching()
			return o.open(ev.Kv.Key, nil, ev.Kv.ModRevision+1)
		}
	}
	if resp.Canceled {
		o.stopWatching()
		if resp.CompactRevision == 0 {
			return errWatchCanceled
		}
	}
	return nil
}

func (o *observeSession) stopWatching() {
	if o.watch != nil {
		o.watch.Close()
		o.watch = nil
	}
}

func (o *observeSession) Close() {
	o.stopWatching()
	o.in.free()
}
