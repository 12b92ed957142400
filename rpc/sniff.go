package rpc

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// This file tells what the first request of an HTTP/2 connection is, by reading
// ahead. Only TLS connections of clients that speak nothing but HTTP/2 come here.
// Most of them are gRPC clients, which send no request before they have seen the
// server's settings. So these are sent here, empty ones: the server that gets the
// connection sends its own behind them, as HTTP/2 allows at any time. What it must
// not see is the client's acknowledgment of settings that it has not sent.

const (
	// sniffWait is how long the first request is waited for. A connection on which
	// none comes is an idle gRPC client's.
	sniffWait = 10 * time.Second
	// sniffBytes bounds what is read ahead.
	sniffBytes = 16 << 10
	// sniffHeaderBytes bounds a header field that is decoded.
	sniffHeaderBytes = 8 << 10
)

type sniffed int

const (
	sniffedUnknown sniffed = iota // more bytes may tell
	sniffedGRPC
	sniffedHTTP
)

var errNoPreface = errors.New("rpc: not an HTTP/2 connection")

// emptySettings is a SETTINGS frame without any, and settingsAck the answer to one.
const (
	emptySettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	settingsAck   = "\x00\x00\x00\x04\x01\x00\x00\x00\x00"
)

// sniffHTTP2 returns what conn carries, and conn with everything that was read
// in front again.
func sniffHTTP2(conn *tls.Conn) (net.Conn, sniffed, error) {
	if err := conn.SetDeadline(time.Now().Add(sniffWait)); err != nil {
		return nil, 0, err
	}
	head := make([]byte, 0, 1024)
	for greeted := false; ; {
		if cap(head)-len(head) < 512 {
			head = append(head, make([]byte, len(head))...)[:len(head)]
		}
		n, err := conn.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		kind, perr := sniffFrames(head)
		switch {
		case perr != nil:
			return nil, 0, perr
		case err != nil && !(greeted && errors.Is(err, os.ErrDeadlineExceeded)):
			return nil, 0, err
		case err != nil || len(head) >= sniffBytes:
			kind = sniffedGRPC
		}
		if !greeted && len(head) >= len(http2.ClientPreface) {
			greeted = true
			if _, err := io.WriteString(conn, emptySettings); err != nil {
				return nil, 0, err
			}
		}
		if kind != sniffedUnknown {
			r := &replayConn{Conn: conn}
			r.head = r.withoutAck(head)
			return r, kind, conn.SetDeadline(time.Time{})
		}
	}
}

const frameHeaderBytes = 9

// sniffFrames looks for the first request in what a client has sent so far.
func sniffFrames(b []byte) (sniffed, error) {
	if n := min(len(b), len(http2.ClientPreface)); string(b[:n]) != http2.ClientPreface[:n] {
		return 0, errNoPreface
	}
	b = b[min(len(b), len(http2.ClientPreface)):]
	for len(b) >= frameHeaderBytes {
		length := int(binary.BigEndian.Uint32(b) >> 8)
		kind, flags := http2.FrameType(b[3]), http2.Flags(b[4])
		switch kind {
		case http2.FrameSettings, http2.FrameWindowUpdate, http2.FramePriority:
		case http2.FrameHeaders:
			if len(b) < frameHeaderBytes+length {
				return sniffedUnknown, nil
			}
			return sniffRequest(b[frameHeaderBytes:frameHeaderBytes+length], flags), nil
		default: // a ping wants an answer now
			return sniffedGRPC, nil
		}
		if len(b) < frameHeaderBytes+length {
			break
		}
		b = b[frameHeaderBytes+length:]
	}
	return sniffedUnknown, nil
}

// sniffRequest goes by the content type, as etcd does.
func sniffRequest(b []byte, flags http2.Flags) sniffed {
	if flags.Has(http2.FlagHeadersPadded) {
		if len(b) == 0 || int(b[0]) > len(b)-1 {
			return sniffedGRPC
		}
		b = b[1 : len(b)-int(b[0])]
	}
	if flags.Has(http2.FlagHeadersPriority) {
		if len(b) < 5 {
			return sniffedGRPC
		}
		b = b[5:]
	}
	kind := sniffedHTTP
	if !flags.Has(http2.FlagHeadersEndHeaders) {
		kind = sniffedGRPC // more headers follow; without proof it is gRPC
	}
	d := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "content-type" {
			if kind = sniffedHTTP; isGRPCContent(f.Value) {
				kind = sniffedGRPC
			}
		}
	})
	d.SetMaxStringLength(sniffHeaderBytes)
	if _, err := d.Write(b); err != nil {
		return sniffedGRPC // which refuses it
	}
	return kind
}

func isGRPCContent(contentType string) bool {
	return strings.HasPrefix(contentType, "application/grpc")
}

// replayConn is a connection whose first bytes have been read already. It leaves
// out the client's first acknowledgment of settings.
type replayConn struct {
	*tls.Conn
	head    []byte // to be read next
	frame   []byte // the header of a frame, as far as it has come
	skip    int    // bytes of preface or payload until the next header
	started bool
	acked   bool
}

// Read implements net.Conn.
func (c *replayConn) Read(b []byte) (int, error) {
	for len(c.head) == 0 {
		if c.acked {
			return c.Conn.Read(b)
		}
		var raw [1024]byte
		n, err := c.Conn.Read(raw[:])
		if n == 0 {
			return 0, err
		}
		c.head = c.withoutAck(raw[:n]) // an error comes again with the next Read
	}
	n := copy(b, c.head)
	if c.head = c.head[n:]; len(c.head) == 0 {
		c.head = nil
	}
	return n, nil
}

// withoutAck goes over what comes until the acknowledgment has been left out. It
// keeps an incomplete frame header back.
func (c *replayConn) withoutAck(in []byte) (out []byte) {
	if !c.started {
		c.started, c.skip = true, len(http2.ClientPreface)
	}
	for len(in) > 0 && !c.acked {
		if n := min(c.skip, len(in)); n > 0 {
			out, in, c.skip = append(out, in[:n]...), in[n:], c.skip-n
			continue
		}
		n := min(frameHeaderBytes-len(c.frame), len(in))
		c.frame, in = append(c.frame, in[:n]...), in[n:]
		switch {
		case len(c.frame) < frameHeaderBytes:
		case string(c.frame) == settingsAck:
			c.acked, c.frame = true, nil
		default:
			out = append(out, c.frame...)
			c.skip, c.frame = int(binary.BigEndian.Uint32(c.frame)>>8), c.frame[:0]
		}
	}
	return append(out, in...)
}
