package light

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// raw lets a grpc-go server speak bytes.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = raw{}

// answer is the server: it knows a few methods.
func answer(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	for {
		var in []byte
		if err := stream.RecvMsg(&in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch method {
		case "/t/Echo":
		case "/t/Blow": // the answer is 1000 times the request
			in = bytes.Repeat(in, 1000)
		case "/t/Fail":
			return status.Error(codes.OutOfRange, "compacted: 100 % ünicode")
		case "/t/Hang":
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		if err := stream.SendMsg(&in); err != nil {
			return err
		}
	}
}

// connect serves answer with grpc-go and connects to it.
func connect(t *testing.T) (*Conn, *grpc.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(answer), grpc.MaxRecvMsgSize(64<<20))
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	c, err := Dial(t.Context(), l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		s.Stop()
		serving.Wait()
	})
	return c, s
}

// want gives a decode function that compares.
func want(expected []byte) func([]byte) error {
	return func(got []byte) error {
		if !bytes.Equal(got, expected) {
			return fmt.Errorf("got %d bytes, want %d others", len(got), len(expected))
		}
		return nil
	}
}

func TestCallsAtOnce(t *testing.T) {
	c, _ := connect(t)
	var callers sync.WaitGroup
	for i := range 50 {
		callers.Go(func() {
			for n := range 100 {
				body := []byte(fmt.Sprint("caller ", i, " call ", n))
				if err := c.Call(t.Context(), "/t/Echo", body, want(body)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	if len(c.streams) != 0 {
		t.Errorf("%d streams are left", len(c.streams))
	}
}

func TestLargerThanEveryWindow(t *testing.T) {
	c, _ := connect(t)
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB, the server's window is 64 KiB
	for range 3 {
		if err := c.Call(t.Context(), "/t/Echo", body, want(body)); err != nil {
			t.Fatal(err)
		}
	}
	small := body[:10_000]
	if err := c.Call(t.Context(), "/t/Blow", small, want(bytes.Repeat(small, 1000))); err != nil { // 10 MB, ours is 4 MiB
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), "/t/Echo", nil, want(nil)); err != nil {
		t.Errorf("an empty message: %v", err)
	}
}

func TestStatus(t *testing.T) {
	c, _ := connect(t)
	for range 3 { // also after the header table has filled
		err := c.Call(t.Context(), "/t/Fail", []byte("x"), want(nil))
		if status.Code(err) != codes.OutOfRange || status.Convert(err).Message() != "compacted: 100 % ünicode" {
			t.Fatalf("got %v", err)
		}
	}
}

func TestCancelledCall(t *testing.T) {
	c, _ := connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "/t/Hang", []byte("x"), want(nil)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if err := c.Call(t.Context(), "/t/Echo", []byte("y"), want([]byte("y"))); err != nil {
		t.Errorf("the connection is of no use after it: %v", err)
	}
}

func TestStream(t *testing.T) {
	c, _ := connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := c.Open(ctx, "/t/Echo")
	if err != nil {
		t.Fatal(err)
	}
	const messages, size = 2000, 5000 // 10 MB: windows have to be given back
	go func() {
		for i := range messages {
			if err := s.Send(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := range messages {
		if err := s.Receive(want(bytes.Repeat([]byte{byte(i)}, size))); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	cancel()
	if err := s.Receive(want(nil)); status.Code(err) != codes.Canceled {
		t.Errorf("after its context a stream gives %v", err)
	}
}

func TestStreamStatus(t *testing.T) {
	c, _ := connect(t)
	s, err := c.Open(t.Context(), "/t/Fail")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Receive(want(nil)); status.Code(err) != codes.OutOfRange {
		t.Errorf("got %v", err)
	}
	if err := s.Send([]byte("x")); !errors.Is(err, io.EOF) {
		t.Errorf("sending on an ended stream gave %v", err)
	}
}

func TestLostConnectionFailsEverything(t *testing.T) {
	c, server := connect(t)
	s, err := c.Open(t.Context(), "/t/Echo")
	if err != nil {
		t.Fatal(err)
	}
	hung := make(chan error, 1)
	go func() { hung <- c.Call(t.Context(), "/t/Hang", []byte("x"), want(nil)) }()
	if err := c.Call(t.Context(), "/t/Echo", []byte("x"), want([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	for _, err := range []error{<-hung, s.Receive(want(nil)), c.Call(t.Context(), "/t/Echo", []byte("x"), want(nil))} {
		if status.Code(err) != codes.Unavailable && status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(answer))
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	c, err := Dial(b.Context(), l.Addr().String(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	body := make([]byte, 300)
	b.ReportAllocs()
	b.SetParallelism(10)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := c.Call(b.Context(), "/t/Echo", body, func([]byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
