package rpc

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// This file tells what the first request of an HTTP/2 connection is, by reading
// ahead. Only TLS connections of clients that speak nothing but HTTP/2 come here.
// Most of them are gRPC clients, some of which send no request before they have
// seen the server's settings, so that waiting for one would be waiting for ever.
// A client of the HTTP endpoints sends its request right behind its settings. So
// a connection is gRPC's unless it soon proves otherwise.

const (
	// sniffPrefaceWait is how long the client may take for its preface.
	sniffPrefaceWait = 10 * time.Second
	// sniffRequestWait is how long the request may come after the settings. It is
	// what a gRPC client that waits for our settings pays once a connection.
	sniffRequestWait = 5 * time.Millisecond
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

// sniffHTTP2 returns what conn carries, and conn with everything that was read
// in front again.
func sniffHTTP2(conn *tls.Conn) (net.Conn, sniffed, error) {
	head := make([]byte, 0, 1024)
	deadline := time.Now().Add(sniffPrefaceWait)
	for started := false; ; {
		if err := conn.SetReadDeadline(deadline); err != nil {
			return nil, 0, err
		}
		if cap(head)-len(head) < 512 {
			head = append(head, make([]byte, len(head))...)[:len(head)]
		}
		n, err := conn.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		kind, perr := sniffFrames(head)
		switch {
		case perr != nil:
			return nil, 0, perr
		case err != nil && !(started && errors.Is(err, os.ErrDeadlineExceeded)):
			return nil, 0, err
		case err != nil || len(head) >= sniffBytes:
			kind = sniffedGRPC
		}
		if kind != sniffedUnknown {
			return &replayConn{Conn: conn, head: head}, kind, conn.SetReadDeadline(time.Time{})
		}
		if !started && len(head) > len(http2.ClientPreface) {
			started = true
			deadline = time.Now().Add(sniffRequestWait)
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

// replayConn is a connection whose first bytes have been read already.
type replayConn struct {
	*tls.Conn
	head []byte
}

// Read implements net.Conn.
func (c *replayConn) Read(b []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.head)
	if c.head = c.head[n:]; len(c.head) == 0 {
		c.head = nil
	}
	return n, nil
}
