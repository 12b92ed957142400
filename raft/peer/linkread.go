package peer

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

const (
	// readBuffer is what one read takes; many small messages come in one.
	readBuffer = 64 << 10
	// growStep bounds how much memory a frame's length alone makes a reader
	// reserve: beyond it memory grows as the bytes come.
	growStep = 1 << 20
)

// received is what a link's reader gives to its owner.
type received interface {
	// frame takes one frame. body is valid only during the call, unless owned.
	frame(l *link, typ frameType, body []byte, owned bool) error
	// pause is called when everything that was read has been given.
	pause(l *link)
}

// read gives the frames that come to to, until the connection ends, and
// returns why.
func (l *link) read(to received) error {
	buf := make([]byte, readBuffer)
	from, end := 0, 0 // what is read and not given
	for {
		for {
			n, err := l.parse(to, buf[from:end])
			if err != nil {
				l.close(err)
				return l.reason()
			}
			if n == 0 {
				break
			}
			from += n
		}
		to.pause(l)
		from, end = 0, copy(buf, buf[from:end])
		n, err := l.conn.Read(buf[end:])
		if n > 0 {
			l.heard.Store(sinceEpoch())
			l.stats.received(n)
			end += n
		}
		if err != nil {
			l.close(err)
			return l.reason()
		}
	}
}

// parse gives one frame and returns how much of b it was, 0 if it is not
// complete.
func (l *link) parse(to received, b []byte) (int, error) {
	if len(b) < headBytes {
		return 0, nil
	}
	h, err := readHead(b, l.kind.maxFrame())
	if err != nil {
		return 0, err
	}
	size := headBytes + int(h.length)
	if size > readBuffer {
		return len(b), l.parseLarge(to, h, b)
	}
	if len(b) < size {
		return 0, nil
	}
	body := b[headBytes:size]
	if err := h.check(b, body); err != nil {
		return 0, err
	}
	return size, l.give(to, h.typ, body, false)
}

// parseLarge gives a frame that does not fit into the buffer; b is the start of
// it and everything that was read.
func (l *link) parseLarge(to received, h head, b []byte) error {
	var first8 [8]byte
	copy(first8[:], b)
	body := append(make([]byte, 0, min(int(h.length), growStep)), b[headBytes:]...)
	conn := l.inner() // a lot at a time
	for len(body) < int(h.length) {
		if len(body) == cap(body) {
			body = append(make([]byte, 0, min(int(h.length), 4*cap(body))), body...)
		}
		n, err := conn.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if n > 0 {
			l.heard.Store(sinceEpoch())
			l.stats.received(n)
		}
		if err != nil && len(body) < int(h.length) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	if err := h.check(first8[:], body); err != nil {
		return err
	}
	return l.give(to, h.typ, body, true)
}

// give handles what belongs to the connection itself and hands on the rest.
func (l *link) give(to received, typ frameType, body []byte, owned bool) error {
	switch typ {
	case framePing:
		if len(body) != 8 {
			return fmt.Errorf("%w: ping", errFrame)
		}
		_ = l.putFrame(framePong, body) // flushed in pause; full: there is traffic
		return nil
	case framePong:
		if len(body) != 8 || !l.dialed {
			return fmt.Errorf("%w: pong", errFrame)
		}
		l.stats.roundTrip(time.Duration(sinceEpoch() - int64(binary.LittleEndian.Uint64(body))))
		return nil
	}
	return to.frame(l, typ, body, owned)
}

func appendNanos(n int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }
