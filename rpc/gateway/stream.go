package gateway

import (
	"errors"
	"io"
	"net/http"
	"time"

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

// converse serves a method with messages both ways. This goroutine forwards what
// comes from the server, another one what comes from the client.
func (x *exchange) converse() {
	stream, err := x.g.conn.NewStream(x.ctx, &x.desc, x.fullName)
	if err != nil {
		x.fail(err)
		return
	}
	// Without this, net/http answers an HTTP/1.1 request only when its body has
	// come to an end, and a client that keeps it open to send more gets nothing.
	_ = http.NewResponseController(x.w).EnableFullDuplex() // not supported: need not be enabled
	if x.r.ProtoMajor == 1 && x.r.ContentLength < 0 {
		x.w.Header().Set("Connection", "close") // the body may never end: see stopReading
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		x.send(stream)
	}()
	x.forward(stream)
	x.cancel()
	x.stopReading(sent)
}

// restOfBody is how long a body of known length may take to arrive once the stream
// that it is for has ended. As a rule all of it is there.
const restOfBody = time.Second

// stopReading waits for the sender, for net/http tolerates neither a reader of the
// body behind the end of a request nor a body whose end comes then. A sender that
// waits for more is woken by a deadline. When that has passed, the connection is
// spoilt: net/http would report every later request on it as canceled. So it is
// one that closes now anyway, or it is cut.
func (x *exchange) stopReading(sent <-chan struct{}) {
	rc := http.NewResponseController(x.w)
	switch _, socket := x.w.(*socketWriter); {
	case socket:
		_ = x.r.Body.Close()
		<-sent
	case x.r.ProtoMajor == 1 && x.r.ContentLength >= 0:
		_ = rc.Flush() // an error may be all that there is to say
		deadline := time.Now().Add(restOfBody)
		_ = rc.SetReadDeadline(deadline)
		<-sent
		x.body.skip()
		if x.body.ended && time.Now().Before(deadline) {
			_ = rc.SetReadDeadline(time.Time{})
			return
		}
		panic(http.ErrAbortHandler)
	default:
		_ = rc.SetReadDeadline(time.Unix(1, 0))
		<-sent
		x.body.skip() // what net/http has in its buffer
	}
}

// send passes the messages of the body on until one is wrong; the server then
// sees the end of what the client sends. The rest of the body is read all the
// same, for net/http notices that a client goes away only then. A client that
// sends without end is told.
func (x *exchange) send(stream grpc.ClientStream) {
	err := x.sendAll(stream)
	if !errors.Is(err, errBodyTooLarge) {
		_ = stream.CloseSend()
		_, err = io.Copy(io.Discard, x.body)
	}
	if errors.Is(err, errBodyTooLarge) {
		x.cancel()
	}
}

func (x *exchange) sendAll(stream grpc.ClientStream) error {
	for {
		req := x.req.New().Interface()
		if err := x.in.Decode(req); err != nil {
			return err
		}
		x.body.next()
		if err := stream.SendMsg(req); err != nil {
			return err
		}
	}
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
