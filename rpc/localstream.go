package rpc

import "context"

// localStream is a stream that a service opens on another one in the same
// process: no transport, no goroutine. Whoever opened it sends, receives and
// closes it on one goroutine, and waits in recv.
type localStream struct {
	*Stream
	session Session
	out     Out
}

// openLocal opens a streaming method for a service, in the name of whoever ctx
// belongs to.
func (s *Server) openLocal(ctx context.Context, m *Method) (*localStream, error) {
	if err := s.admitCall(ctx, m, false); err != nil {
		return nil, err
	}
	st := newStream(ctx, s, m)
	s.leader.add(st, requiresLeader(ctx))
	return &localStream{Stream: st, session: m.Open(st)}, nil
}

func (l *localStream) send(msg request) error {
	b, err := msg.MarshalVT()
	if err != nil {
		return err
	}
	return l.session.Recv(b)
}

// recv waits for the next message, which is valid until the next call.
func (l *localStream) recv() ([]byte, error) {
	for {
		next, err := l.session.Next(&l.out)
		if err != nil {
			return nil, err
		}
		if next == NextMore {
			if b := l.out.Bytes(); len(b) > 0 {
				return b, nil
			}
			continue
		}
		select {
		case <-l.wakeup:
		case <-l.failed:
			return nil, l.cause.Load()
		case <-l.Ctx.Done():
			return nil, l.Ctx.Err()
		}
	}
}

func (l *localStream) close() {
	l.srv.leader.remove(l.Stream)
	l.session.Close()
	l.out.free()
}
