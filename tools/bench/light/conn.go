package light

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"runtime"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// streamWindow is what a server may send on a stream before it is consumed.
	streamWindow = 4 << 20
	// connWindow is practically unlimited; see the package comment.
	connWindow = 1 << 30
	// defaultWindow is HTTP/2's, until SETTINGS say otherwise.
	defaultWindow = 65535
	// maxFrame is the largest frame that HTTP/2 lets one send unasked.
	maxFrame = 16384
	// messagePrefix is gRPC's: a compression flag and a length.
	messagePrefix = 5
	frameHeader   = 9
)

// Conn is one connection. It is safe for concurrent use.
type Conn struct {
	nc        net.Conn
	scheme    string
	authority string

	mu       sync.Mutex
	windowed *sync.Cond // a send window has grown, or the connection has failed
	out      []byte
	spare    []byte // the other out buffer, while none is being written
	flushing bool
	encoder  *hpack.Encoder
	headers  bytes.Buffer // the encoder's output
	nextID   uint32
	streams  map[uint32]*Stream
	window   int64 // what may still be sent on the connection
	initial  int64 // of a new stream's send window
	failure  error

	reader sync.WaitGroup
}

// Dial connects; tlsConfig nil means plain text.
func Dial(ctx context.Context, addr string, tlsConfig *tls.Config) (*Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{
		nc: nc, scheme: "http", authority: addr, nextID: 1, streams: map[uint32]*Stream{}, window: defaultWindow, initial: defaultWindow,
	}
	if tlsConfig != nil {
		cfg := tlsConfig.Clone()
		cfg.NextProtos = []string{"h2"}
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(addr)
		}
		t := tls.Client(nc, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, err
		}
		c.nc, c.scheme = t, "https"
	}
	c.windowed = sync.NewCond(&c.mu)
	c.encoder = hpack.NewEncoder(&c.headers)
	c.mu.Lock()
	c.out = append(c.out, http2.ClientPreface...)
	c.settingsLocked()
	c.flushLocked()
	c.mu.Unlock()
	c.reader.Go(c.read)
	return c, nil
}

// Close closes the connection; calls under way fail.
func (c *Conn) Close() error {
	err := c.nc.Close()
	c.reader.Wait()
	return err
}

// fail ends every stream; the first reason stays.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure == nil {
		c.failure = status.Error(codes.Unavailable, err.Error())
	}
	for id, s := range c.streams {
		delete(c.streams, id)
		s.end(c.failure)
	}
	c.windowed.Broadcast()
	c.nc.Close()
}

// frameLocked appends a frame's header; the caller appends length bytes.
func (c *Conn) frameLocked(length int, kind http2.FrameType, flags http2.Flags, id uint32) {
	c.out = append(c.out, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	c.out = binary.BigEndian.AppendUint32(c.out, id)
}

// settingsLocked announces the windows.
func (c *Conn) settingsLocked() {
	c.frameLocked(6, http2.FrameSettings, 0, 0)
	c.out = binary.BigEndian.AppendUint16(c.out, uint16(http2.SettingInitialWindowSize))
	c.out = binary.BigEndian.AppendUint32(c.out, streamWindow)
	c.windowUpdateLocked(0, connWindow-defaultWindow)
}

func (c *Conn) windowUpdateLocked(id uint32, n int) {
	c.frameLocked(4, http2.FrameWindowUpdate, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(n))
}

func (c *Conn) resetLocked(id uint32, code http2.ErrCode) {
	c.frameLocked(4, http2.FrameRSTStream, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
}

// flushLocked writes what is in the out buffer, unless somebody is at it, who
// then takes this too. It releases the lock while writing.
func (c *Conn) flushLocked() {
	if c.flushing {
		return
	}
	c.flushing = true
	for len(c.out) > 0 && c.failure == nil {
		c.mu.Unlock()
		// Others who are about to call get their frames into the same write:
		// without this every call is a system call of its own.
		runtime.Gosched()
		c.mu.Lock()
		buf := c.out
		c.out = c.spare[:0]
		c.mu.Unlock()
		_, err := c.nc.Write(buf)
		if err != nil {
			c.fail(err)
		}
		c.mu.Lock()
		c.spare = buf
	}
	c.flushing = false
}

// flushSoonLocked is for the reader, which must not write itself: a server that
// reads nothing while it writes would wait for it for ever.
func (c *Conn) flushSoonLocked() {
	if c.flushing {
		return
	}
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.flushLocked()
	}()
}

// openLocked starts a stream with its HEADERS.
func (c *Conn) openLocked(method string, s *Stream) error {
	if c.failure != nil {
		return c.failure
	}
	if c.nextID > math.MaxInt32 {
		return status.Error(codes.Unavailable, "the connection has used all its stream ids")
	}
	s.id, s.window = c.nextID, c.initial
	c.nextID += 2
	c.streams[s.id] = s
	c.headers.Reset()
	for _, f := range [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: c.scheme}, {Name: ":path", Value: method}, {Name: ":authority", Value: c.authority},
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "quire-bench"}, {Name: "te", Value: "trailers"},
	} {
		if err := c.encoder.WriteField(f); err != nil {
			return fmt.Errorf("encoding %s: %w", f.Name, err)
		}
	}
	c.frameLocked(c.headers.Len(), http2.FrameHeaders, http2.FlagHeadersEndHeaders, s.id)
	c.out = append(c.out, c.headers.Bytes()...)
	return nil
}

// sendLocked sends one message, in as many frames and as many pieces as the
// windows allow. It may release the lock while it waits for a window.
func (c *Conn) sendLocked(s *Stream, body []byte, last bool) error {
	var prefix [messagePrefix]byte
	binary.BigEndian.PutUint32(prefix[1:], uint32(len(body)))
	head, total := prefix[:], messagePrefix+len(body)
	for total > 0 {
		for c.failure == nil && !s.ended() && min(c.window, s.window) <= 0 {
			c.flushLocked() // what is waited for may depend on it
			if c.failure == nil && !s.ended() && min(c.window, s.window) <= 0 {
				c.windowed.Wait()
			}
		}
		if c.failure != nil {
			return c.failure
		}
		if s.ended() {
			return nil // the server has answered without reading on; its status counts
		}
		n := int(min(int64(total), maxFrame, c.window, s.window))
		var flags http2.Flags
		if last && n == total {
			flags = http2.FlagDataEndStream
		}
		c.frameLocked(n, http2.FrameData, flags, s.id)
		fromHead := min(n, len(head))
		c.out = append(c.out, head[:fromHead]...)
		c.out = append(c.out, body[:n-fromHead]...)
		head, body = head[fromHead:], body[n-fromHead:]
		c.window, s.window, total = c.window-int64(n), s.window-int64(n), total-n
	}
	return nil
}
