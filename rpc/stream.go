package rpc

import (
	"context"
	"sync/atomic"
)

// Session is the service's side of one stream. The transport serialises Recv
// and RecvEnd among themselves, and Next among itself; Recv may run beside
// Next. Close is called once, after which nothing is called any more except a
// Recv or Next that is still running.
type Session interface {
	// Recv handles one message, valid during the call. An error ends the
	// stream with its status.
	Recv(msg []byte) error
	// RecvEnd says that the client sends no more; end tells whether the
	// stream is over with that.
	RecvEnd() (end bool)
	// Next puts one outgoing message into the empty out and says what
	// follows. An error ends the stream with its status.
	Next(out *Out) (Next, error)
	Close()
}

// Next says what follows a call of Session.Next.
type Next int

const (
	NextMore Next = iota // there is a message; call again
	NextIdle             // there is none; call again after Wake
	NextEnd              // the stream succeeds after the message in out, if any
)

// Stream is the transport's side of one stream, as its session sees it.
type Stream struct {
	Method *Method
	Ctx    context.Context

	srv    *Server
	wakeup chan struct{} // cap 1: a wake while one is pending adds nothing
	failed chan struct{} // closed by the first Fail
	cause  atomic.Pointer[Status]
}

func newStream(ctx context.Context, srv *Server, m *Method) *Stream {
	return &Stream{
		Method: m, Ctx: ctx, srv: srv,
		wakeup: make(chan struct{}, 1),
		failed: make(chan struct{}),
	}
}

// Wake tells the transport that Next has something. It never blocks.
func (s *Stream) Wake() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// Fail ends the stream with the status of err; only the first one counts.
func (s *Stream) Fail(err error) {
	if s.cause.CompareAndSwap(nil, StatusOf(err)) {
		close(s.failed)
	}
}
