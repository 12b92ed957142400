package client

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Call sends one encoded request and has reply read the answer.
func Call(ctx context.Context, cc Conn, method string, body []byte, reply Reply) error {
	return cc.Invoke(ctx, method, &request{body: body}, reply)
}

// WatchStream is one open Watch call.
type WatchStream struct {
	stream grpc.ClientStream
}

// OpenWatch starts a Watch call; it ends with ctx.
func OpenWatch(ctx context.Context, cc Conn) (*WatchStream, error) {
	s, err := cc.NewStream(ctx, &etcdserverpb.Watch_ServiceDesc.Streams[0], etcdserverpb.Watch_Watch_FullMethodName)
	if err != nil {
		return nil, fmt.Errorf("opening a watch stream: %w", err)
	}
	return &WatchStream{stream: s}, nil
}

// Send sends one request; one goroutine at a time.
func (w *WatchStream) Send(r *etcdserverpb.WatchRequest) error { return w.stream.SendMsg(r) }

// Receive blocks for the next response; one goroutine at a time.
func (w *WatchStream) Receive(reply *WatchReply) error { return w.stream.RecvMsg(reply) }

// Append encodes m behind dst.
func Append(dst []byte, m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend(dst, m)
}
