package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Method names what one member can ask of another. The numbers are part of the
// protocol: a number is never given a second meaning.
type Method byte

// Handler answers a call of another member. ctx ends when the caller waits no
// longer. The body is the handler's; the answer is not changed after return.
type Handler func(ctx context.Context, from uint64, body []byte) ([]byte, error)

// CallError is what the called member answered instead of a result.
type CallError struct{ Text string }

func (e *CallError) Error() string { return e.Text }

// Faults of a call. After ErrCallLost the call may have been carried out.
var (
	ErrUnknownMember = errors.New("peer: no such member")
	ErrCallLost      = errors.New("peer: the connection was lost during a call")
)

const (
	// maxCallsWaiting bounds the calls that wait on one connection, and what
	// its other end works on at a time. Above, a call is refused. maxReadsWaiting
	// is the same for reads of a snapshot, of which each holds a chunk.
	maxCallsWaiting = 256
	maxReadsWaiting = 32
	// callRetry is how often a call looks whether there is a connection.
	callRetry = 50 * time.Millisecond
)

const (
	answeredOK    = 0
	answeredError = 1
)

// request: id u64 | method u8 | milliseconds u32 that the caller waits | body.
func appendRequest(dst []byte, id uint64, m Method, wait time.Duration, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, id)
	dst = append(dst, byte(m))
	millis := min(max(wait.Milliseconds(), 1), 1<<31)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(millis))
	return append(dst, body...)
}

const requestHead = 8 + 1 + 4

// response: id u64 | answered… u8 | result or text.
func responseParts(id uint64, result []byte, err error) (head, data []byte) {
	head = binary.LittleEndian.AppendUint64(make([]byte, 0, responseHead), id)
	if err != nil {
		return append(head, answeredError), []byte(err.Error())
	}
	return append(head, answeredOK), result
}

const responseHead = 8 + 1

// caller is the dialer's side of a connection: it sends requests and tells
// their answers.
type caller struct {
	link *link
	mu   struct {
		sync.Mutex
		next    uint64
		waiting map[uint64]chan answer // each holds one
		ended   error
	}
}

type answer struct {
	body []byte
	err  error
}

func newCaller(l *link) *caller {
	c := &caller{link: l}
	c.mu.waiting = map[uint64]chan answer{}
	return c
}

// run reads and writes until the connection or ctx ends, and returns why.
func (c *caller) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.link.close(errClosed) })
	defer stop()
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.link.write()
	}()
	err := c.link.read(c)
	<-written
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.ended = fmt.Errorf("%w: %w", ErrCallLost, err)
	for id, ch := range c.mu.waiting {
		ch <- answer{err: c.mu.ended}
		delete(c.mu.waiting, id)
	}
	return err
}

// call asks and waits for the answer.
func (c *caller) call(ctx context.Context, m Method, body []byte) ([]byte, error) {
	wait := time.Minute
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	ch := make(chan answer, 1)
	id, err := c.register(ch)
	if err != nil {
		return nil, err
	}
	err = c.link.putFrame(frameRequest, appendRequest(make([]byte, 0, requestHead+len(body)), id, m, wait, body))
	if err != nil {
		c.forget(id)
		return nil, fmt.Errorf("%w: %w", ErrCallLost, err)
	}
	c.link.flush()
	select {
	case a := <-ch:
		return a.body, a.err
	case <-ctx.Done():
		c.forget(id)
		return nil, ctx.Err()
	}
}

func (c *caller) register(ch chan answer) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.ended != nil {
		return 0, c.mu.ended
	}
	if len(c.mu.waiting) >= maxCallsWaiting {
		return 0, errBusy
	}
	c.mu.next++
	c.mu.waiting[c.mu.next] = ch
	return c.mu.next, nil
}

func (c *caller) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.waiting, id)
}

// frame implements received.
func (c *caller) frame(_ *link, typ frameType, body []byte, owned bool) error {
	if typ != frameResponse || len(body) < responseHead {
		return fmt.Errorf("%w: frame of type %d and %d bytes on the dialer's side", errFrame, typ, len(body))
	}
	id := binary.LittleEndian.Uint64(body)
	c.mu.Lock()
	ch := c.mu.waiting[id]
	delete(c.mu.waiting, id)
	c.mu.Unlock()
	if ch == nil {
		return nil // its caller has given up
	}
	if !owned {
		body = bytes.Clone(body)
	}
	a := answer{body: body[responseHead:]}
	if body[8] != answeredOK {
		a = answer{err: &CallError{string(a.body)}}
	}
	ch <- a
	return nil
}

// pause implements received.
func (c *caller) pause(l *link) { l.flush() }

// Call asks another member and waits for its answer, while ctx lasts also for a
// connection. An answer that is an error comes back as CallError.
func (t *Transport) Call(ctx context.Context, to uint64, m Method, body []byte) ([]byte, error) {
	for {
		p := t.find(to)
		if p == nil {
			return nil, fmt.Errorf("%w: %x", ErrUnknownMember, to)
		}
		ln := p.lanes[calls]
		if c := ln.open.Load(); c != nil {
			return c.call(ctx, m, body)
		}
		ln.dialNow()
		select {
		case <-time.After(callRetry):
		case <-p.opened(calls):
		case <-ctx.Done():
			return nil, fmt.Errorf("peer: call of %x: %w", to, errors.Join(ctx.Err(), p.lastFault()))
		}
	}
}

// serveRequest runs the handler of one call on a goroutine of its own.
func (in *inbound) serveRequest(body []byte, owned bool) error {
	if len(body) < requestHead {
		return fmt.Errorf("%w: request of %d bytes", errFrame, len(body))
	}
	if !owned {
		body = bytes.Clone(body)
	}
	id, method := binary.LittleEndian.Uint64(body), Method(body[8])
	wait := time.Duration(binary.LittleEndian.Uint32(body[9:])) * time.Millisecond
	select {
	case in.working <- struct{}{}:
	default:
		in.respond(id, nil, errBusy)
		return nil
	}
	in.handlers.Add(1)
	go func() {
		defer in.handlers.Done()
		defer func() { <-in.working }()
		ctx, cancel := context.WithTimeout(in.ctx, wait)
		defer cancel()
		result, err := in.handle(ctx, method, body[requestHead:])
		if ctx.Err() == nil { // else nobody waits any more
			in.respond(id, result, err)
			in.link.flush()
		}
	}()
	return nil
}

// respond queues an answer. One that does not fit is lost, as in a broken
// connection: its caller's time ends.
func (in *inbound) respond(id uint64, result []byte, err error) {
	if err == nil && len(result) > maxControlFrame-responseHead {
		err = fmt.Errorf("peer: answer of %d bytes is too large", len(result))
	}
	head, data := responseParts(id, result, err)
	_ = in.link.putFrameOf(frameResponse, head, data)
}

// handle answers one call.
func (in *inbound) handle(ctx context.Context, m Method, body []byte) ([]byte, error) {
	if in.link.kind == transfer {
		return in.t.serveSnapshot(ctx, in.p, m, body)
	}
	h := in.t.cfg.Handlers[m]
	if h == nil {
		return nil, fmt.Errorf("peer: method %d is not known here", m)
	}
	return h(ctx, in.p.id, body)
}
