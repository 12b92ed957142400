package rpc

import (
	"errors"

	pb "quire/api/etcdserverpb"
	"quire/watchfanout"
)

const watchService = "etcdserverpb.Watch"

// WatchStream is one client's watch cursors (watchfanout.Stream).
type WatchStream interface {
	// Create, Cancel and Progress queue their answer. watchfanout.ErrBusy:
	// nothing was done because too many answers are unread; again after Fill.
	Create(*pb.WatchCreateRequest) error
	Cancel(watchID int64) error
	Progress() error
	// Fill appends the next WatchResponse to dst, if there is one, and says how
	// many events it holds. more=false means that none is left and that ready will
	// be called for the next.
	Fill(dst []byte) (out []byte, events int, more bool)
	Close()
}

// ErrRetryRecv is returned by Session.Recv when the same message has to be
// given again after Next has made room.
var ErrRetryRecv = errors.New("rpc: session is full")

func (s *Server) watchMethods() []*Method {
	return []*Method{{
		Service: watchService, Name: "Watch", Auth: AuthHandler, Open: s.openWatch,
		ClientStreams: true, Duplex: true,
	}}
}

// watchSession passes requests and responses between a stream and its cursors.
type watchSession struct {
	stream *Stream
	cur    WatchStream
}

func (s *Server) openWatch(st *Stream) Session {
	rights := &watchRights{stream: st}
	return &watchSession{stream: st, cur: s.cfg.OpenWatch(watchfanout.StreamOptions{
		Ready: st.Wake, Permit: rights.permit, Keep: rights.keep,
	})}
}

func (w *watchSession) Recv(msg []byte) error {
	var r pb.WatchRequest
	if err := decode(&msg, &r); err != nil {
		return err
	}
	var err error
	switch u := r.RequestUnion.(type) {
	case *pb.WatchRequest_CreateRequest:
		err = w.cur.Create(u.CreateRequest)
	case *pb.WatchRequest_CancelRequest:
		err = w.cur.Cancel(u.CancelRequest.WatchId)
	case *pb.WatchRequest_ProgressRequest:
		err = w.cur.Progress()
	default:
		// A kind of request that this version does not know: not worth the
		// client's other watches.
	}
	if errors.Is(err, watchfanout.ErrBusy) {
		return ErrRetryRecv
	}
	return err
}

// RecvEnd keeps the watches: a client that has nothing more to ask still
// listens.
func (w *watchSession) RecvEnd() bool { return false }

func (w *watchSession) Next(out *Out) (Next, error) {
	b, events, more := w.cur.Fill(out.begin())
	out.end(b, headerRoom)
	out.events = events
	if len(b) == headerRoom && !more {
		return NextIdle, nil
	}
	return NextMore, nil
}

func (w *watchSession) Close() { w.cur.Close() }

// OpenHubWatch makes the streams of a hub what Config.OpenWatch gives.
func OpenHubWatch(hub *watchfanout.Hub) func(watchfanout.StreamOptions) WatchStream {
	return func(o watchfanout.StreamOptions) WatchStream {
		return hubStream{hub.OpenStream(o)}
	}
}

type hubStream struct{ *watchfanout.Stream }

// Fill implements WatchStream: as few messages as the hub gives, which is one.
func (h hubStream) Fill(dst []byte) (out []byte, events int, more bool) {
	before := h.Given()
	out, more = h.Stream.Fill(dst, 1, nil)
	return out, int(h.Given() - before), more
}
