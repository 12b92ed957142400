package light

import (
	"context"
	"encoding/binary"
	"io"
	"sync"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Stream is one call. Send and Receive may each be used by one goroutine.
type Stream struct {
	conn   *Conn
	id     uint32
	window int64 // send window; guarded by conn.mu
	unary  bool  // wake only at the end

	wake chan struct{} // capacity 1: something is new since the last look

	// Of the goroutine that receives.
	ready    []byte // taken from buf
	other    []byte // the buffer that ready is or was part of
	consumed int    // since the last window update

	mu       sync.Mutex
	buf      []byte // received and not yet taken
	received int    // unary: since the last window update
	done     bool
	result   error // status, when done; nil is OK
}

// calls are unary streams that can be used again.
var calls = sync.Pool{New: func() any { return &Stream{unary: true, wake: make(chan struct{}, 1)} }}

// Call makes one unary call. body belongs to the caller again on return; what
// decode is given is valid only during its call.
func (c *Conn) Call(ctx context.Context, method string, body []byte, decode func([]byte) error) error {
	s := calls.Get().(*Stream)
	*s = Stream{conn: c, unary: true, wake: s.wake, buf: s.buf[:0]}
	c.mu.Lock()
	err := c.openLocked(method, s)
	if err == nil {
		err = c.sendLocked(s, body, true)
	}
	c.flushLocked()
	c.mu.Unlock()
	if err != nil {
		return err // s is dropped: the reader may still know it
	}
	select {
	case <-s.wake:
	case <-ctx.Done():
		c.abandon(s)
		return status.FromContextError(ctx.Err()).Err()
	}
	// The reader forgot the stream before it ended it, so nobody else has it.
	defer calls.Put(s)
	if s.result != nil {
		return s.result
	}
	message, rest, ok := cut(s.buf)
	if !ok || len(rest) > 0 {
		return status.Errorf(codes.Internal, "a unary answer of %d bytes is not one message", len(s.buf))
	}
	return decode(message)
}

// Open starts a bidirectional stream; it ends with ctx.
func (c *Conn) Open(ctx context.Context, method string) (*Stream, error) {
	s := &Stream{conn: c, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	err := c.openLocked(method, s)
	c.flushLocked()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() {
		c.abandon(s)
		s.end(status.FromContextError(ctx.Err()).Err())
	})
	return s, nil
}

// abandon resets the stream if it has not ended.
func (c *Conn) abandon(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	c.resetLocked(s.id, http2.ErrCodeCancel)
	c.flushLocked()
}

// Send sends one message.
func (s *Stream) Send(body []byte) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	err := s.conn.sendLocked(s, body, false)
	s.conn.flushLocked()
	if err == nil && s.ended() {
		return io.EOF // as grpc-go: Receive has the status
	}
	return err
}

// Receive blocks for the next message and gives it to decode, for the time of
// its call; io.EOF after the last.
func (s *Stream) Receive(decode func([]byte) error) error {
	for {
		message, rest, ok := cut(s.ready)
		if ok {
			s.ready = rest
			return decode(message)
		}
		got, done, result := s.refill()
		switch {
		case got:
		case done && result != nil:
			return result
		case done:
			return io.EOF
		default:
			<-s.wake
		}
	}
}

// refill takes what has arrived and gives its window back.
func (s *Stream) refill() (got, done bool, result error) {
	s.mu.Lock()
	n := len(s.buf)
	if n > 0 && len(s.ready) == 0 {
		s.ready, s.buf = s.buf, s.other[:0]
		s.other = s.ready
	} else {
		s.ready, s.buf = append(s.ready, s.buf...), s.buf[:0]
	}
	done, result = s.done, s.result
	s.mu.Unlock()
	if s.consumed += n; s.consumed > streamWindow/2 && !done {
		s.conn.mu.Lock()
		s.conn.windowUpdateLocked(s.id, s.consumed)
		s.conn.flushLocked()
		s.conn.mu.Unlock()
		s.consumed = 0
	}
	return n > 0, done, result
}

// cut splits the first message off buf.
func cut(buf []byte) (message, rest []byte, ok bool) {
	if len(buf) < messagePrefix {
		return nil, buf, false
	}
	n := int(binary.BigEndian.Uint32(buf[1:]))
	if len(buf) < messagePrefix+n {
		return nil, buf, false
	}
	return buf[messagePrefix : messagePrefix+n], buf[messagePrefix+n:], true
}

// arrive appends received data. For a unary call, whose answer is taken only
// when it is whole, it says how much window to give back at once.
func (s *Stream) arrive(data []byte) (update int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = append(s.buf, data...)
	if !s.unary {
		s.signal()
		return 0
	}
	if s.received += len(data); s.received > streamWindow/2 {
		update, s.received = s.received, 0
	}
	return update
}

// end is called once by whoever has removed the stream from the connection, and
// by the end of an open stream's context.
func (s *Stream) end(result error) {
	s.mu.Lock()
	if !s.done {
		s.done, s.result = true, result
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Stream) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
