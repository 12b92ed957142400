package light

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	readBuffer = 64 << 10
	// maxHeaderBlock bounds the trailers of one stream.
	maxHeaderBlock = 1 << 20
)

// reader is the state of the one goroutine that reads.
type reader struct {
	conn    *Conn
	in      *bufio.Reader
	decoder *hpack.Decoder
	block   []byte // header block that CONTINUATION frames go on
	last    bool   // it ends its stream
	payload []byte

	// What the header block being decoded says.
	status  string
	message string

	unacknowledged int // bytes of data since the last window update of the connection
}

// read runs until the connection fails.
func (c *Conn) read() {
	r := &reader{conn: c, in: bufio.NewReaderSize(c.nc, readBuffer)}
	r.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case "grpc-status":
			r.status = f.Value
		case "grpc-message":
			r.message = f.Value
			if text, err := url.PathUnescape(f.Value); err == nil {
				r.message = text
			}
		}
	})
	for {
		if err := r.frame(); err != nil {
			c.fail(err)
			return
		}
	}
}

// frame reads and handles one frame.
func (r *reader) frame() error {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r.in, h[:]); err != nil {
		return err
	}
	length := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	kind, flags := http2.FrameType(h[3]), http2.Flags(h[4])
	id := binary.BigEndian.Uint32(h[5:]) &^ (1 << 31)
	if length > maxFrame {
		return fmt.Errorf("the server sent a frame of %d bytes, over %d", length, maxFrame)
	}
	if cap(r.payload) < length {
		r.payload = make([]byte, maxFrame)
	}
	payload := r.payload[:length]
	if _, err := io.ReadFull(r.in, payload); err != nil {
		return err
	}
	payload, err := unpad(kind, flags, payload)
	if err != nil {
		return err
	}
	switch kind {
	case http2.FrameData:
		return r.data(id, payload, length, flags.Has(http2.FlagDataEndStream))
	case http2.FrameHeaders:
		r.block, r.last = append(r.block[:0], payload...), flags.Has(http2.FlagHeadersEndStream)
		return r.headers(id, flags.Has(http2.FlagHeadersEndHeaders))
	case http2.FrameContinuation:
		if len(r.block)+length > maxHeaderBlock {
			return fmt.Errorf("a header block is over %d bytes", maxHeaderBlock)
		}
		r.block = append(r.block, payload...)
		return r.headers(id, flags.Has(http2.FlagContinuationEndHeaders))
	case http2.FrameSettings:
		return r.settings(payload, flags.Has(http2.FlagSettingsAck))
	case http2.FramePing:
		return r.ping(payload, flags.Has(http2.FlagPingAck))
	case http2.FrameWindowUpdate:
		return r.windowUpdate(id, payload)
	case http2.FrameRSTStream:
		return r.reset(id, payload)
	case http2.FrameGoAway:
		return fmt.Errorf("the server closes the connection (GOAWAY)")
	}
	return nil // unknown frames are ignored
}

// unpad strips padding and priority.
func unpad(kind http2.FrameType, flags http2.Flags, p []byte) ([]byte, error) {
	pad, skip := 0, 0
	padded := kind == http2.FrameData && flags.Has(http2.FlagDataPadded) || kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersPadded)
	if padded && len(p) > 0 {
		pad, skip = int(p[0]), 1
	}
	if kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersPriority) {
		skip += 5
	}
	if skip+pad > len(p) {
		return nil, fmt.Errorf("a frame of %d bytes has %d of padding", len(p), pad)
	}
	return p[skip : len(p)-pad], nil
}

func (r *reader) stream(id uint32) *Stream {
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()
	return r.conn.streams[id]
}

// data hands the payload to its stream and gives the connection's window back.
func (r *reader) data(id uint32, payload []byte, length int, last bool) error {
	if s := r.stream(id); s != nil {
		if update := s.arrive(payload); update > 0 {
			r.conn.mu.Lock()
			r.conn.windowUpdateLocked(id, update)
			r.conn.flushSoonLocked()
			r.conn.mu.Unlock()
		}
	}
	if r.unacknowledged += length; r.unacknowledged > connWindow/4 {
		r.conn.mu.Lock()
		r.conn.windowUpdateLocked(0, r.unacknowledged)
		r.conn.flushSoonLocked()
		r.conn.mu.Unlock()
		r.unacknowledged = 0
	}
	if last {
		r.finish(id, status.Error(codes.Internal, "the server ended a stream without a status"))
	}
	return nil
}

// headers decodes a header block once it is whole. The decoder has to see every
// block, also of streams that are gone.
func (r *reader) headers(id uint32, whole bool) error {
	if !whole {
		return nil
	}
	r.status, r.message = "", ""
	if _, err := r.decoder.Write(r.block); err != nil {
		return err
	}
	if err := r.decoder.Close(); err != nil {
		return err
	}
	if !r.last && r.status == "" {
		return nil
	}
	code, err := strconv.ParseUint(r.status, 10, 32)
	switch {
	case err != nil:
		r.finish(id, status.Errorf(codes.Internal, "grpc-status is %q", r.status))
	case code == 0:
		r.finish(id, nil)
	default:
		r.finish(id, status.Error(codes.Code(code), r.message))
	}
	return nil
}

// finish removes the stream and tells its owner.
func (r *reader) finish(id uint32, result error) {
	c := r.conn
	c.mu.Lock()
	s := c.streams[id]
	delete(c.streams, id)
	c.mu.Unlock()
	if s == nil {
		return
	}
	unary := s.unary // s may be in use again right after its end
	if s.end(result); !unary {
		c.windowed.Broadcast() // a sender may wait for a window that will not come
	}
}

func (r *reader) settings(payload []byte, ack bool) error {
	if ack {
		return nil
	}
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; len(payload) >= 6; payload = payload[6:] {
		value := binary.BigEndian.Uint32(payload[2:])
		switch http2.SettingID(binary.BigEndian.Uint16(payload)) {
		case http2.SettingInitialWindowSize:
			grown := int64(value) - c.initial
			c.initial = int64(value)
			for _, s := range c.streams {
				s.window += grown
			}
			c.windowed.Broadcast()
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSizeLimit(value)
		}
	}
	c.frameLocked(0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	c.flushSoonLocked()
	return nil
}

func (r *reader) ping(payload []byte, ack bool) error {
	if ack || len(payload) != 8 {
		return nil
	}
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frameLocked(8, http2.FramePing, http2.FlagPingAck, 0)
	c.out = append(c.out, payload...)
	c.flushSoonLocked()
	return nil
}

func (r *reader) windowUpdate(id uint32, payload []byte) error {
	if len(payload) != 4 {
		return fmt.Errorf("a window update has %d bytes", len(payload))
	}
	n := int64(binary.BigEndian.Uint32(payload) &^ (1 << 31))
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		c.window += n
	} else if s := c.streams[id]; s != nil {
		s.window += n
	}
	c.windowed.Broadcast()
	return nil
}

func (r *reader) reset(id uint32, payload []byte) error {
	if len(payload) != 4 {
		return fmt.Errorf("a reset has %d bytes", len(payload))
	}
	r.finish(id, status.Errorf(codes.Unavailable, "the server reset the stream: %v", http2.ErrCode(binary.BigEndian.Uint32(payload))))
	return nil
}
