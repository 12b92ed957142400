package rpc

import (
	"context"
	"math"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"quire/rpc/gateway"
)

// loopback is a gRPC connection of the process to itself, for the JSON gateway:
// through memory, so that it needs no address, name or certificate, and through
// the same grpc.Server, so that its calls are counted, limited and refused as
// everybody's are.
type loopback struct {
	lis    *bufconn.Listener
	conn   *grpc.ClientConn
	served chan struct{} // closed when the server has let go of lis
}

// loopbackBytes is the buffer of each direction, large enough for most messages.
const loopbackBytes = 256 << 10

func newLoopback(g *grpc.Server) (*loopback, error) {
	l := &loopback{lis: bufconn.Listen(loopbackBytes), served: make(chan struct{})}
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return l.lis.DialContext(ctx) }
	conn, err := grpc.NewClient("passthrough:///gateway",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
	)
	if err != nil {
		return nil, err
	}
	l.conn = conn
	go func() {
		defer close(l.served)
		_ = g.Serve(l.lis) // ends with the server, which ServeGRPC reports
	}()
	return l, nil
}

// close cuts the connection and the calls on it; the server has to be stopped
// before awaitServed.
func (l *loopback) close() { _ = l.conn.Close() }

func (l *loopback) awaitServed() {
	_ = l.lis.Close()
	<-l.served
}

// gatewayFactor is how much longer the JSON form of a request may be than the
// request: a third for base64, the rest for names, quotes and space.
const gatewayFactor = 4

// openGateway makes the handler of the JSON API.
func (s *Server) openGateway() (err error) {
	if !s.cfg.Gateway {
		return nil
	}
	if s.loop, err = newLoopback(s.grpc); err != nil {
		return err
	}
	s.json, err = gateway.New(s.loop.conn, gateway.Options{
		MaxMessageBytes: gatewayFactor * int64(s.cfg.MaxRequestBytes+overheadBytes),
		Logger:          s.cfg.Logger,
	})
	return err
}
