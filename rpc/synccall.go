package rpc

import (
	"context"
	"errors"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// syncCall is a Call with a goroutine that sleeps until it has ended. Of the
// transports, grpc-go and the HTTP endpoints need it: they have a goroutine
// per request anyway.
type syncCall struct {
	Call
	// woken holds at most one token for a continuation and one for the end.
	woken chan struct{}
	in    rawRequest // grpc-go's receive buffer behind Call.Req
}

func newSyncCall(s *Server) *syncCall {
	g := &syncCall{woken: make(chan struct{}, 2)}
	s.dog.adopt(&g.Call)
	g.wake = func(*Call) { g.woken <- struct{}{} }
	g.free = func(*Call) {
		for len(g.woken) > 0 {
			<-g.woken
		}
		s.calls.Put(g)
	}
	return g
}

// await sleeps until the call has ended, running its continuations. Whatever
// happens, the watchdog ends it: a wait on the context here would cost every
// call a channel and a select.
func (g *syncCall) await() error {
	for {
		<-g.woken
		if g.ended() {
			break
		}
		g.Continue()
	}
	if g.err != nil {
		return g.err
	}
	return nil
}

// Invoke runs a unary method for a caller inside the process and returns the
// response's wire bytes. Whose call it is is told by ctx, as for a client: the
// token in its incoming metadata, or the certificate of its peer.
func (s *Server) Invoke(ctx context.Context, fullName string, req []byte) ([]byte, error) {
	return s.invoke(ctx, fullName, req, false)
}

// invoke is Invoke; own says that the call is the server's own and may everything.
func (s *Server) invoke(ctx context.Context, fullName string, req []byte, own bool) ([]byte, error) {
	m := s.byName[fullName]
	if m == nil || m.streaming() {
		return nil, unimplemented("", fullName)
	}
	g := s.calls.Get().(*syncCall)
	defer g.release()
	g.start = s.cfg.Clock.now()
	g.begin(s, m, req)
	g.Ctx, g.own = ctx, own
	if err := s.admitCall(ctx, m, own); err != nil {
		return nil, err
	}
	m.Unary(&g.Call)
	if err := g.await(); err != nil {
		return nil, err
	}
	m.stats.inside.Add(1)
	return append([]byte(nil), g.out.Bytes()...), nil
}

// Compact compacts on behalf of the process itself. A revision that is
// compacted already is no error.
func (s *Server) Compact(ctx context.Context, rev int64) error {
	req, err := (&pb.CompactionRequest{Revision: rev}).MarshalVT()
	if err != nil {
		return err
	}
	_, err = s.invoke(ctx, "/"+kvService+"/Compact", req, true)
	var st *Status
	if errors.As(err, &st) && st == StatusOf(engine.ErrCompacted) {
		return nil
	}
	return err
}
