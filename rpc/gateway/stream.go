package gateway

import (
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// listen serves a method that answers one message with many.
func (x *exchange) listen() {
	req, err := x.receiveOne()
	if err != nil {
		x.fail(err)
		return
	}
	stream, err := x.g.conn.NewStream(x.ctx, &x.desc, x.fullName)
	if err == nil {
		err = stream.SendMsg(req)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		x.fail(err)
		return
	}
	x.forward(stream)
}

// converse serves a method with messages both ways. The sender's goroutine ends
// with the body of the request, which net/http closes when this returns.
func (x *exchange) converse() {
	stream, err := x.g.conn.NewStream(x.ctx, &x.desc, x.fullName)
	if err != nil {
		x.fail(err)
		return
	}
	// Without this, net/http answers an HTTP/1.1 request only when its body has
	// come to an end, and a client that keeps it open to send more gets nothing.
	_ = http.NewResponseController(x.w).EnableFullDuplex() // not supported: need not be enabled
	go x.send(stream)
	x.forward(stream)
}

// send passes the messages of the body on until one is wrong; the server then
// sees the end of what the client sends.
func (x *exchange) send(stream grpc.ClientStream) {
	for {
		req := x.req.New().Interface()
		if err := x.in.Decode(req); err != nil {
			break
		}
		x.body.next()
		if err := stream.SendMsg(req); err != nil {
			break
		}
	}
	_ = stream.CloseSend()
}

// forward writes the stream's messages, a chunk each.
func (x *exchange) forward(stream grpc.ClientStream) {
	header, err := stream.Header()
	if err != nil {
		x.fail(err)
		return
	}
	x.headers.HeaderMD = header
	recv := func() (proto.Message, error) {
		resp := x.resp.New().Interface()
		if err := stream.RecvMsg(resp); err != nil {
			return nil, err
		}
		return resp, nil
	}
	ctx := runtime.NewServerMetadataContext(x.ctx, x.headers)
	runtime.ForwardResponseStream(ctx, x.g.mux, x.out, x.w, x.r, recv, x.g.mux.GetForwardResponseOptions()...)
}
