package peer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// A connection is a sequence of frames in both directions, after the dialer's
// magic. doc.go has the byte table.
const (
	headBytes = 16

	// maxControlFrame bounds the frames of every connection but bulk ones: raft
	// messages without entries, calls, chunks of a snapshot with their heads.
	maxControlFrame = 4 << 20
	// maxBulkFrame bounds one message with entries. One operation may have 48
	// MiB (raft.Config.MaxOpBytes) and travels in one entry.
	maxBulkFrame = 56 << 20
)

// frameType tells what a frame's body is.
type frameType byte

const (
	frameHello    frameType = 1 // dialer → listener, first
	frameWelcome  frameType = 2 // listener → dialer, first: accepted or refused
	frameMessage  frameType = 3 // a raft message
	framePing     frameType = 4 // a number to be sent back
	framePong     frameType = 5
	frameRequest  frameType = 6 // of a call
	frameResponse frameType = 7
)

// errFrame is the cause of every frame that cannot have been sent: wrong
// length, type, hash or body. The connection is closed: nothing behind it can
// be trusted to start where it seems to.
var errFrame = errors.New("malformed frame")

// head is the fixed start of a frame.
type head struct {
	length uint32
	typ    frameType
	hash   uint64
}

// appendHead appends the head of a frame of n bytes whose hash is not known
// yet; see sealHead.
func appendHead(dst []byte, typ frameType, n int) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	dst = append(dst, byte(typ), 0, 0, 0)
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
}

// sealHead fills in the hash over the head's first half and the body's parts.
func sealHead(h []byte, parts ...[]byte) {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(h[:8])
	for _, p := range parts {
		_, _ = d.Write(p)
	}
	binary.LittleEndian.PutUint64(h[8:], d.Sum64())
}

// appendFrame appends a whole frame.
func appendFrame(dst []byte, typ frameType, body []byte) []byte {
	at := len(dst)
	dst = append(appendHead(dst, typ, len(body)), body...)
	sealHead(dst[at:at+headBytes], dst[at+headBytes:])
	return dst
}

// readHead reads the fixed start of a frame from headBytes bytes.
func readHead(b []byte, limit int) (head, error) {
	h := head{
		length: binary.LittleEndian.Uint32(b),
		typ:    frameType(b[4]),
		hash:   binary.LittleEndian.Uint64(b[8:]),
	}
	if b[5]|b[6]|b[7] != 0 || h.typ < frameHello || h.typ > frameResponse {
		return h, fmt.Errorf("%w: type %x", errFrame, b[4:8])
	}
	if int64(h.length) > int64(limit) {
		return h, fmt.Errorf("%w: %d bytes, more than %d", errFrame, h.length, limit)
	}
	return h, nil
}

// check compares the hash with what was received.
func (h head) check(first8, body []byte) error {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(first8[:8])
	_, _ = d.Write(body)
	if got := d.Sum64(); got != h.hash {
		return fmt.Errorf("%w: hash %x, want %x: damaged on the way", errFrame, got, h.hash)
	}
	return nil
}

// cursor reads the fields of a body. After the first fault all reads give zero
// and err is set.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail() {
	if c.err == nil {
		c.err = fmt.Errorf("%w: body is cut or too long", errFrame)
	}
	c.b = nil
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) u64() uint64 {
	if len(c.b) < 8 {
		c.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(c.b)
	c.b = c.b[8:]
	return v
}

func (c *cursor) byte() byte {
	if len(c.b) < 1 {
		c.fail()
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

// take returns the next n bytes; they share memory with the body.
func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail()
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// bytes returns a field with a length in front.
func (c *cursor) bytes() []byte { return c.take(c.uvarint()) }

// end refuses bytes that are left over.
func (c *cursor) end() error {
	if c.err == nil && len(c.b) > 0 {
		c.fail()
	}
	return c.err
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}
