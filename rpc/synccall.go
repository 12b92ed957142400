package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"

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

// await sleeps until the call has ended, running its continuations, or until
// the client has gone.
func (g *syncCall) await(ctx context.Context) error {
	for {
		select {
		case <-g.woken:
			if g.ended() {
				return nil
			}
			g.Continue()
			continue
		default: // most calls end before anybody has to sleep
		}
		select {
		case <-g.woken:
			if g.ended() {
				return nil
			}
			g.Continue()
		case <-ctx.Done():
			if g.abandon() {
				return contextStatus(ctx)
			}
			<-g.woken // a continuation, or the end that is on its way
			if g.ended() {
				return nil
			}
		}
	}
}

func contextStatus(ctx context.Context) error {
	return status.FromContextError(ctx.Err()).Err()
}

// Invoke runs a unary method for a caller inside the process and returns the
// response's wire bytes.
func (s *Server) Invoke(ctx context.Context, fullName string, req []byte) ([]byte, error) {
	m := s.byName[fullName]
	if m == nil || m.streaming() {
		return nil, unimplemented("", fullName)
	}
	g := s.calls.Get().(*syncCall)
	defer g.release()
	g.start = s.cfg.Clock.now()
	g.begin(s, m, req)
	g.Ctx = ctx
	if err := s.admitCall(ctx, m); err != nil {
		return nil, err
	}
	m.Unary(&g.Call)
	if err := g.await(ctx); err != nil {
		return nil, err
	}
	resp, st := g.Response()
	if st != nil {
		return nil, st
	}
	return append([]byte(nil), resp...), nil
}

// Compact compacts on behalf of the process itself. A revision that is
// compacted already is no error.
func (s *Server) Compact(ctx context.Context, rev int64) error {
	req, err := (&pb.CompactionRequest{Revision: rev}).MarshalVT()
	if err != nil {
		return err
	}
	_, err = s.Invoke(ctx, "/"+kvService+"/Compact", req)
	var st *Status
	if errors.As(err, &st) && st == StatusOf(engine.ErrCompacted) {
		return nil
	}
	return err
}
