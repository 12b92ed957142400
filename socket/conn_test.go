package socket

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// pair returns both ends of a connection, the first one wrapped.
func pair(t testing.TB, network string) (*Conn, net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	lis, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	a, err := net.Dial(network, lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return Wrap(a).(*Conn), b
}

// TestBothWays: what goes in comes out, in pieces of all sizes, with a slow reader.
func TestBothWays(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		a, b := pair(t, network)
		rnd := rand.New(rand.NewPCG(1, 2))
		want := make([]byte, 8<<20)
		for i := range want {
			want[i] = byte(rnd.Uint32())
		}
		for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
			var wg sync.WaitGroup
			wg.Go(func() {
				for p := want; len(p) > 0; {
					n := 1 + rnd.IntN(min(len(p), 3*MaxBytes))
					if m, err := way[0].Write(p[:n]); err != nil || m != n {
						t.Errorf("%s: wrote %d of %d: %v", network, m, n, err)
						return
					}
					p = p[n:]
				}
			})
			got := make([]byte, len(want))
			for n := 0; n < len(got); {
				if n < 1<<20 {
					time.Sleep(time.Microsecond) // the socket fills up
				}
				m, err := way[1].Read(got[n:min(len(got), n+100_000)])
				if err != nil {
					t.Fatal(err)
				}
				n += m
			}
			wg.Wait()
			if !bytes.Equal(got, want) {
				t.Fatalf("%s: other bytes", network)
			}
		}
	}
}

// TestErrors: as the net package tells them.
func TestErrors(t *testing.T) {
	a, b := pair(t, "tcp")
	if err := a.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := a.Read(make([]byte, 10))
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("deadline: %v", err)
	}
	if err := a.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if got, err := io.ReadAll(a); err != nil || string(got) != "last" {
		t.Fatalf("%q, %v", got, err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		_, err = a.Write(make([]byte, 1000))
		if err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("writes to a closed connection go on")
		}
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "write" {
		t.Fatalf("write: %v", err)
	}
	done := make(chan error, 1)
	c, _ := pair(t, "tcp")
	go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
	time.Sleep(5 * time.Millisecond)
	c.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("closed while reading: %v", err)
	}
}

// TestWrap: what has no socket stays as it is.
func TestWrap(t *testing.T) {
	p, _ := net.Pipe()
	if Wrap(p) != p {
		t.Error("a pipe was wrapped")
	}
	a, _ := pair(t, "tcp")
	if Wrap(a) != net.Conn(a) {
		t.Error("wrapped twice")
	}
}
