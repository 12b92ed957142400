package rpc

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress their requests
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// This file is the grpc-go transport, the only one that blocks a goroutine on
// a call: grpc-go gives each call one. Stages of a unary call:
//
//	grpc-go reads and frames → serveUnary takes the raw bytes → the handler
//	runs → the goroutine sleeps on syncCall.woken until the call ends or has to
//	be continued → the raw response goes back to grpc-go.

const (
	// grpcBufferBytes is the read and write buffer of a connection. 32 KiB is
	// grpc-go's default; SharedWriteBuffer makes idle connections cost nothing.
	grpcBufferBytes = 32 << 10
	// Fixed flow-control windows: what a client may send before it has to wait.
	// A request of ordinary size fits without a round trip, and bandwidth
	// estimation, which sends a ping for every burst, stays off (up to 4 % of
	// the CPU time of a Put).
	grpcStreamWindow = 1 << 20
	grpcConnWindow   = 2 << 20
	// grpcHeaderBytes bounds the header of a call, which holds little more than a
	// token. With grpc-go's 16 MiB a frame of 16 KiB that names a large header a
	// thousand times costs that much memory and 50 ms.
	grpcHeaderBytes = 256 << 10
	// grpcWorkers is how many goroutines take calls one after another instead
	// of one goroutine a call: their stacks have grown already, which saved a
	// fifth of the CPU time of a Put and a quarter of a Range (10 connections ×
	// 10 streams). Calls beyond them get a goroutine of their own.
	grpcWorkers = 128
)

func newGRPCServer(s *Server, workers uint32) *grpc.Server {
	cfg := &s.cfg
	opts := []grpc.ServerOption{
		grpc.Creds(connCredentials{}),
		grpc.ConnectionTimeout(prefaceWait),
		grpc.ForceServerCodecV2(newCodec(&s.net)),
		grpc.MaxRecvMsgSize(cfg.MaxRequestBytes + overheadBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxHeaderListSize(grpcHeaderBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: cfg.KeepAlive.MinTime}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: cfg.KeepAlive.Interval, Timeout: cfg.KeepAlive.Timeout,
		}),
		grpc.SharedWriteBuffer(true),
		grpc.InitialWindowSize(grpcStreamWindow),
		grpc.InitialConnWindowSize(grpcConnWindow),
		grpc.NumStreamWorkers(workers),
		grpc.ReadBufferSize(grpcBufferBytes),
		grpc.WriteBufferSize(grpcBufferBytes),
	}
	if cfg.GRPCStats != nil {
		opts = append(opts, grpc.StatsHandler(cfg.GRPCStats))
	}
	if cfg.MaxConcurrentStreams != 0 {
		opts = append(opts, grpc.MaxConcurrentStreams(cfg.MaxConcurrentStreams))
	}
	g := grpc.NewServer(opts...)
	byService := map[string][]*Method{}
	var order []string
	for _, m := range s.methods {
		if byService[m.Service] == nil {
			order = append(order, m.Service)
		}
		byService[m.Service] = append(byService[m.Service], m)
	}
	for _, name := range order {
		g.RegisterService(s.serviceDesc(name, byService[name]), s)
	}
	s.health.register(g)
	reflection.Register(g)
	s.calls.New = func() any { return newSyncCall(s) }
	return g
}

// ServeGRPC serves HTTP/2 connections until the listener closes.
func (s *Server) ServeGRPC(lis net.Listener) error {
	err := s.grpc.Serve(lis)
	if errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// stopGRPC lets calls finish until ctx ends and then cuts the connections.
func (s *Server) stopGRPC(ctx context.Context) {
	s.grpcHTTP.Stop() // its connections are an http.Server's, which has been closed
	if s.loop != nil {
		s.loop.close()
		defer s.loop.awaitServed()
	}
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
	}
}

func (s *Server) serviceDesc(name string, methods []*Method) *grpc.ServiceDesc {
	d := &grpc.ServiceDesc{
		ServiceName: name,
		HandlerType: (*any)(nil),
		Metadata:    protoFile(name),
	}
	for _, m := range methods {
		if !m.streaming() {
			d.Methods = append(d.Methods, grpc.MethodDesc{
				MethodName: m.Name,
				Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
					return s.serveUnary(ctx, m, dec)
				},
			})
			continue
		}
		d.Streams = append(d.Streams, grpc.StreamDesc{
			StreamName:    m.Name,
			ServerStreams: true,
			ClientStreams: m.ClientStreams,
			Handler:       func(_ any, gs grpc.ServerStream) error { return s.serveStream(m, gs) },
		})
	}
	return d
}

// protoFile names the file that describes a service, for reflection.
func protoFile(service string) string {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return ""
	}
	return d.ParentFile().Path()
}

func (s *Server) serveUnary(ctx context.Context, m *Method, dec func(any) error) (any, error) {
	g := s.calls.Get().(*syncCall)
	g.start = s.cfg.Clock.now()
	g.begin(s, m, nil)
	g.Ctx = ctx
	m.stats.versions.sample(ctx, m.stats.started.Add(1))
	err := s.runUnary(ctx, g, dec)
	code := codes.OK
	if err != nil {
		code = status.Code(err)
	}
	took := s.cfg.Clock.now().Sub(g.start)
	m.stats.endUnary(code, took, g.onlyReads)
	if took > s.slow.limit || s.slow.debug() {
		s.slow.ended(&g.Call, took)
	}
	var resp *rawResponse
	if err == nil {
		resp = takeResponse(&g.out) // outlives the call: grpc-go encodes it later
	}
	g.in.free()
	g.release()
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// runUnary takes g from its request to its end.
func (s *Server) runUnary(ctx context.Context, g *syncCall, dec func(any) error) error {
	if err := dec(&g.in); err != nil {
		return err
	}
	g.Method.stats.received.Add(1)
	g.Req = g.in.bytes()
	if err := s.admitCall(ctx, g.Method, false); err != nil {
		return err
	}
	if s.cfg.Tracer != nil {
		return s.runTraced(g)
	}
	g.Method.Unary(&g.Call)
	return g.await()
}

// runTraced is the rest of runUnary within a span.
func (s *Server) runTraced(g *syncCall) error {
	ctx, end := s.startSpan(g.Ctx, g.Method.FullName(), g.Req)
	g.Ctx = ctx
	g.Method.Unary(&g.Call)
	err := g.await()
	end(err)
	return err
}

func contextStatus(ctx context.Context) error {
	return status.FromContextError(ctx.Err()).Err()
}

// admitCall refuses what this member cannot serve at all, and clients that may
// not call the method. own is a call of the server's own.
func (s *Server) admitCall(ctx context.Context, m *Method, own bool) error {
	st := s.cfg.RaftStatus()
	if st.IsLearner && !m.Learner {
		return errNotSupportedLearner
	}
	if st.Lead == 0 && requiresLeader(ctx) {
		return errNoLeader
	}
	if m.Auth > AuthHandler && !own && s.cfg.Auth.Enabled() {
		return s.authorize(ctx, m.Auth)
	}
	return nil
}

// requiresLeader tells whether the client asked for a member with a leader.
func requiresLeader(ctx context.Context) bool {
	v := metadata.ValueFromIncomingContext(ctx, "hasleader")
	return len(v) > 0 && v[0] == "true"
}

// serveStream runs one stream: this goroutine sends, another one receives.
// A session that only answers what it receives is driven by the receiver
// alone while this goroutine waits for the end.
func (s *Server) serveStream(m *Method, gs grpc.ServerStream) (err error) {
	m.stats.versions.count(versionOf(gs.Context()), m.stats.started.Add(1))
	m.stats.open.Add(1)
	began := s.cfg.Clock.now()
	defer func() {
		m.stats.open.Add(-1)
		m.stats.end(status.Code(err), s.cfg.Clock.now().Sub(began))
	}()
	if err := s.admitCall(gs.Context(), m, false); err != nil {
		return err
	}
	st := newStream(gs.Context(), s, m)
	s.leader.add(st, requiresLeader(gs.Context()))
	defer s.leader.remove(st)
	session := m.Open(st)
	defer session.Close()
	p := &grpcStream{Stream: st, session: session, gs: gs, received: make(chan error, 1), room: make(chan struct{}, 1)}
	if !m.ClientStreams {
		if err := p.receiveOne(); err != nil {
			return err
		}
		if p.endSpan != nil {
			defer func() { p.endSpan(err) }()
		}
		return p.sendLoop()
	}
	go p.receiveLoop()
	if m.Duplex {
		return p.sendLoop()
	}
	return p.wait()
}

// grpcStream pumps messages between a session and grpc-go.
type grpcStream struct {
	*Stream
	session  Session
	gs       grpc.ServerStream
	in       rawRequest // owned by the receiver
	out      Out        // owned by the sender
	received chan error // how the receiver ended
	room     chan struct{}
	endSpan  func(error) // nil without a tracer
}

// receiveOne hands the only message of a server-streaming call over.
func (p *grpcStream) receiveOne() error {
	if err := p.gs.RecvMsg(&p.in); err != nil {
		return err
	}
	p.Method.stats.received.Add(1)
	defer p.in.free()
	if p.srv.cfg.Tracer != nil {
		_, p.endSpan = p.srv.startSpan(p.gs.Context(), p.Method.FullName(), p.in.bytes())
	}
	return p.session.Recv(p.in.bytes())
}

// receiveLoop is the receiver's goroutine. It ends with the stream.
func (p *grpcStream) receiveLoop() {
	p.received <- p.receiveAll()
}

// errKeepOpen says that the client sends no more but still listens.
var errKeepOpen = errors.New("rpc: half closed")

func (p *grpcStream) receiveAll() error {
	defer p.in.free()
	for {
		err := p.gs.RecvMsg(&p.in)
		p.Method.stats.received.Add(1) // the end too, as etcd's library counts
		if errors.Is(err, io.EOF) {
			if p.session.RecvEnd() {
				return nil
			}
			return errKeepOpen
		}
		if err != nil {
			p.brokeOff(&p.Method.stats.receiveFail)
			return err
		}
		if err := p.deliver(); err != nil {
			return err
		}
		if !p.Method.Duplex {
			if _, err := p.drain(); err != nil {
				return err
			}
		}
	}
}

// deliver gives the received message to the session, again after room was made
// while it is full.
func (p *grpcStream) deliver() error {
	for {
		err := p.session.Recv(p.in.bytes())
		if !errors.Is(err, ErrRetryRecv) {
			return err
		}
		select {
		case <-p.room:
		case <-p.failed:
			return p.cause.Load()
		case <-p.gs.Context().Done():
			return contextStatus(p.gs.Context())
		}
	}
}

// wait returns when the stream ends that its receiver drives.
func (p *grpcStream) wait() error {
	select {
	case err := <-p.received:
		return ended(err)
	case <-p.failed:
		return p.cause.Load()
	case <-p.gs.Context().Done():
		return contextStatus(p.gs.Context())
	}
}

// sendLoop sends what the session has until the stream ends.
func (p *grpcStream) sendLoop() error {
	for {
		end, err := p.drain()
		if err != nil || end {
			return err
		}
		select {
		case <-p.wakeup:
		case <-p.failed:
			return p.cause.Load()
		case err := <-p.received:
			if errors.Is(err, errKeepOpen) {
				continue
			}
			return ended(err)
		case <-p.gs.Context().Done():
			return contextStatus(p.gs.Context())
		}
	}
}

// brokeOff counts an error of the stream that the client did not cause by going
// away.
func (p *grpcStream) brokeOff(n *atomic.Uint64) {
	if p.gs.Context().Err() == nil {
		n.Add(1)
	}
}

// drain sends until the session is idle or at its end.
func (p *grpcStream) drain() (end bool, err error) {
	var b burst
	times := &p.srv.sending
	timed := p.Method.Duplex // Watch: the others send when they are asked
	if timed {
		defer func() { b.settle(times, p.srv.cfg.Clock.now) }()
	}
	for p.cause.Load() == nil {
		next, err := p.session.Next(&p.out)
		if err != nil {
			p.out.free()
			return false, StatusOf(err)
		}
		if len(p.out.Bytes()) > 0 && next != NextIdle {
			if timed {
				b.add(p.out.Bytes(), p.out.events, p.srv.cfg.Clock.now)
			}
			if err := p.gs.SendMsg(takeResponse(&p.out)); err != nil {
				p.brokeOff(&p.Method.stats.sendFails)
				return false, err
			}
			if b.size() >= maxBurst {
				b.settle(times, p.srv.cfg.Clock.now)
			}
			p.Method.stats.sent.Add(1)
			select {
			case p.room <- struct{}{}:
			default:
			}
		}
		if next != NextMore {
			p.out.free()
			return next == NextEnd, nil
		}
	}
	return false, nil
}

// ended turns the receiver's word into the stream's status.
func ended(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return StatusOf(err)
}
