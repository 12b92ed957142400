package abuse

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

// bomb is a compressor whose output is a fixed text, whatever it is given.
type bomb struct{ compressed []byte }

func (b bomb) Name() string { return "gzip" }

func (b bomb) Compress(w io.Writer) (io.WriteCloser, error) { return &bombWriter{b, w}, nil }

func (b bomb) Decompress(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

type bombWriter struct {
	bomb
	w io.Writer
}

func (b *bombWriter) Write(p []byte) (int, error) { return len(p), nil }

func (b *bombWriter) Close() error {
	_, err := b.w.Write(b.compressed)
	return err
}

// TestGzipBomb: half a megabyte that becomes half a gigabyte.
func TestGzipBomb(t *testing.T) {
	v := newVictim(t)
	var small bytes.Buffer
	w, err := gzip.NewWriterLevel(&small, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, mib)
	for range 512 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	encoding.RegisterCompressor(bomb{small.Bytes()})
	conn := v.Conn(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var in, out = []byte("x"), []byte(nil)
			err := conn.Invoke(t.Context(), "/etcdserverpb.KV/Put", &in, &out, grpc.ForceCodec(rawCodec{}), grpc.UseCompressor("gzip"))
			if code := status.Code(err); code != codes.ResourceExhausted {
				t.Errorf("%v, want ResourceExhausted", err)
			}
		})
	}
	wg.Wait()
	v.alive()
	v.within(64 * mib)
	v.nothingLeft()
}

// TestHugeMessages: requests beyond the limit, several at a time and again and again.
func TestHugeMessages(t *testing.T) {
	v := newVictim(t)
	value := make([]byte, 16*mib)
	var wg sync.WaitGroup
	for range 4 {
		conn := v.Conn(t)
		wg.Go(func() {
			for range 3 {
				_, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: value})
				if code := status.Code(err); code != codes.ResourceExhausted {
					t.Errorf("%v, want ResourceExhausted", err)
				}
			}
		})
	}
	wg.Wait()
	v.alive()
	v.within(64 * mib)
	v.nothingLeft()
}

// methods are all of the API.
func methods() (paths []string) {
	for _, file := range []protoreflect.FileDescriptor{pb.File_rpc_proto, lpb.File_v3lock_proto, epb.File_v3election_proto} {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				paths = append(paths, fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(j).Name()))
			}
		}
	}
	return paths
}

// TestMalformedMessages sends what is no protobuf, or none of this message, to every method.
func TestMalformedMessages(t *testing.T) {
	v := newVictim(t)
	conn := v.Conn(t)
	rnd := rand.New(rand.NewPCG(1, 1))
	bodies := [][]byte{
		{0xff}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, {0x0a, 0x05, 'a'}, {0x08}, {0x0b, 0x0b, 0x0c}, bytes.Repeat([]byte{0x80}, 20),
		{0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, bytes.Repeat([]byte{0x12, 0x02}, 5000), nested(12_000), nested(200_000),
	}
	for range 20 {
		b := make([]byte, 1+rnd.IntN(60))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		bodies = append(bodies, b)
	}
	for _, path := range methods() {
		for _, body := range bodies {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // a lock that somebody has is waited for
			err := callRaw(ctx, conn, path, body)
			cancel()
			switch code := status.Code(err); code {
			case codes.Unavailable:
				t.Errorf("%s with %.20x: %v", path, body, err)
			case codes.Unknown:
				if strings.Contains(err.Error(), "panic") {
					t.Errorf("%s with %.20x: %v", path, body, err)
				}
			}
		}
	}
	v.alive()
	v.within(64 * mib)
	v.nothingLeft()
}

// nested is a transaction in a transaction and so on.
func nested(depth int) []byte {
	var b []byte
	for range depth {
		// TxnRequest.success (2) of RequestOp.request_txn (4), written from the inside out with lengths that cannot be right.
		b = append(b, 0x12, 0x7f, 0x22, 0x7d)
	}
	return b
}

func callRaw(ctx context.Context, conn *grpc.ClientConn, path string, body []byte) error {
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, desc, path, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&body); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var answer []byte
	for {
		if err := stream.RecvMsg(&answer); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}
