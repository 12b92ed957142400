package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"quire/tools/bench/light"
)

// lightConn lets generated stubs and Call use the light client.
type lightConn struct {
	*light.Conn
}

// Invoke implements grpc.ClientConnInterface; there are no options.
func (c lightConn) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	body, err := encode(args)
	if err != nil {
		return err
	}
	return c.Call(ctx, method, body, func(body []byte) error { return decode(body, reply) })
}

// NewStream implements grpc.ClientConnInterface.
func (c lightConn) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.Open(ctx, method)
	if err != nil {
		return nil, err
	}
	return &lightStream{stream: s, ctx: ctx}, nil
}

func encode(m any) ([]byte, error) {
	switch m := m.(type) {
	case *request:
		return m.body, nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("cannot encode a %T", m)
}

func decode(body []byte, m any) error {
	switch m := m.(type) {
	case Reply:
		return m.Decode(body)
	case proto.Message:
		return proto.Unmarshal(body, m)
	}
	return fmt.Errorf("cannot decode into a %T", m)
}

// lightStream implements grpc.ClientStream as far as the workloads use it.
type lightStream struct {
	stream *light.Stream
	ctx    context.Context
}

func (s *lightStream) Header() (metadata.MD, error) { return nil, nil }
func (s *lightStream) Trailer() metadata.MD         { return nil }
func (s *lightStream) CloseSend() error             { return nil } // the stream ends with its context
func (s *lightStream) Context() context.Context     { return s.ctx }

func (s *lightStream) SendMsg(m any) error {
	body, err := encode(m)
	if err != nil {
		return err
	}
	return s.stream.Send(body)
}

func (s *lightStream) RecvMsg(m any) error {
	return s.stream.Receive(func(body []byte) error { return decode(body, m) })
}

// dialLight connects and tries again until ctx ends.
func dialLight(ctx context.Context, addr string, o Options) (lightConn, error) {
	cfg, err := o.tlsConfig()
	if err != nil {
		return lightConn{}, err
	}
	for {
		c, err := light.Dial(ctx, addr, cfg)
		if err == nil {
			return lightConn{c}, nil
		}
		select {
		case <-time.After(redialPause):
		case <-ctx.Done():
			return lightConn{}, errors.Join(fmt.Errorf("connecting to %s: %w", addr, err), ctx.Err())
		}
	}
}
