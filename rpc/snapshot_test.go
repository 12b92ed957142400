package rpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "quire/api/etcdserverpb"
)

func openSnapshotStream(t *testing.T, ctx context.Context, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/etcdserverpb.Maintenance/Snapshot")
	if err == nil {
		err = errors.Join(st.SendMsg(&pb.SnapshotRequest{}), st.CloseSend())
	}
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestSnapshotOverGRPC(t *testing.T) {
	for _, size := range []int{512, snapshotChunk, snapshotChunk + 512, 10 * snapshotChunk} {
		f := newFake()
		content := bytes.Repeat([]byte("database"), size/8)
		f.snap = &fakeSnapshot{Reader: bytes.NewReader(content)}
		s := newTestServer(t, f)
		conn, _ := dial(t, s)
		st := openSnapshotStream(t, t.Context(), conn)
		var got []byte
		for {
			var resp pb.SnapshotResponse
			err := st.RecvMsg(&resp)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, resp.Blob...)
			if want := uint64(max(0, size-len(got))); resp.RemainingBytes != want || resp.Version != "3.7.0" || resp.Header != nil {
				t.Errorf("after %d bytes: %d remain, want %d, version %q, header %v", len(got), resp.RemainingBytes, want, resp.Version, resp.Header)
			}
		}
		sum := sha256.Sum256(content)
		if !bytes.Equal(got, append(content, sum[:]...)) {
			t.Errorf("%d bytes came, want %d and the sum", len(got), size)
		}
		if !eventually(f.snap.closed.Load) {
			t.Error("the file is still open")
		}
	}
}

func TestSnapshotRefused(t *testing.T) {
	conn, _ := dial(t, newTestServer(t, newFake()))
	st := openSnapshotStream(t, t.Context(), conn)
	wantGRPC(t, st.RecvMsg(&pb.SnapshotResponse{}), codes.ResourceExhausted, "etcdserver: no space for a snapshot")
}

// TestSnapshotReaders lets one client go away in the middle, and another one stop
// reading; both must lose their file.
func TestSnapshotReaders(t *testing.T) {
	for name, stall := range map[string]time.Duration{"goes away": time.Hour, "stops reading": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.snap = &fakeSnapshot{Reader: bytes.NewReader(make([]byte, 64<<20))}
			conn, _ := dial(t, newTestServer(t, f, func(c *Config) { c.SnapshotStall = stall }))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			st := openSnapshotStream(t, ctx, conn)
			if err := st.RecvMsg(&pb.SnapshotResponse{}); err != nil {
				t.Fatal(err)
			}
			if name == "goes away" {
				cancel()
			}
			if !eventually(f.snap.closed.Load) {
				t.Fatal("the file is still open")
			}
			if name != "goes away" {
				var err error
				for err == nil {
					err = st.RecvMsg(&pb.SnapshotResponse{})
				}
				wantGRPC(t, err, codes.Unavailable, "etcdserver: snapshot client reads too slowly")
			}
		})
	}
}

func TestHumanBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 9: "9 B", 10: "10 B", 20480: "20 kB", 1536: "1.5 kB", 9_990_000: "10 MB", 12_345_678: "12 MB", 3_200_000_000: "3.2 GB"} {
		if got := humanBytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
