package peer

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"

	"quire/socket"
)

const (
	// writeChunk is how much is written under one deadline: a slow network is
	// no stalled one as long as this much leaves within the deadline.
	writeChunk = 256 << 10
	// pingInterval is how often the dialer asks whether the other is there.
	pingInterval = time.Second
	// maxVectors is what the kernel takes in one call.
	maxVectors = 1024
)

var (
	errFull    = errors.New("queue is full")
	errClosed  = errors.New("connection closed")
	errSilence = errors.New("nothing was heard in time")
)

// link is one established connection after both greetings. Frames go into its
// outbox from any goroutine; whoever flushes writes them, without waiting, as
// far as the socket takes them, and leaves the rest to the link's own writer.
// Over TLS the writer does it all. So a message to a healthy peer costs no
// change of goroutine, and a message to a stalled one never waits.
//
// Goroutines: write, here; read, in linkread.go, runs on its caller's.
type link struct {
	conn   net.Conn
	raw    syscall.RawConn // nil: only the writer may write
	kind   kind
	peer   uint64
	dialed bool // by this side
	limit  int  // bytes that may wait
	stats  *counters

	readTimeout, writeTimeout time.Duration
	heard                     atomic.Int64 // when something was read last, since epoch

	mu struct {
		sync.Mutex
		out  outbox
		busy bool // somebody writes, or has left the rest to the writer
		err  error
	}
	writing outbox   // owned by whoever is busy
	rest    [][]byte // of writing; the same owner
	tryBuf  [][]byte // what try writes
	tried   int
	tryErr  error
	tryFn   func(fd uintptr) bool

	wake chan struct{} // to the writer, who is busy from then on; holds one
	done chan struct{}
	once sync.Once
}

// epoch makes monotonic times small integers.
var epoch = time.Now()

func sinceEpoch() int64 { return int64(time.Since(epoch)) }

func newLink(conn net.Conn, k kind, id uint64, limit int, s *counters) *link {
	l := &link{conn: conn, kind: k, peer: id, limit: limit, stats: s, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if c, ok := conn.(syscall.Conn); ok { // not a tls.Conn
		if raw, err := c.SyscallConn(); err == nil {
			l.raw = raw
			l.tryFn = l.writeOnce
		}
	}
	l.mu.out.whole, l.writing.whole = l.raw == nil, l.raw == nil
	l.heard.Store(sinceEpoch())
	return l
}

// put adds a message to what waits. flush sends it.
func (l *link) put(m *raftpb.Message) error {
	n := messageBytes(m)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admitLocked(n); err != nil {
		return err
	}
	l.mu.out.addMessage(m)
	return nil
}

// putFrame is put for other frames.
func (l *link) putFrame(typ frameType, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admitLocked(headBytes + len(body)); err != nil {
		return err
	}
	l.mu.out.addFrame(typ, body)
	return nil
}

// putFrameOf is putFrame for a body in two parts, of which data is not changed any
// more.
func (l *link) putFrameOf(typ frameType, head, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admitLocked(headBytes + len(head) + len(data)); err != nil {
		return err
	}
	l.mu.out.addFrameOf(typ, head, data)
	return nil
}

// admitLocked refuses what does not fit; what is alone always fits. What is
// being written comes on top, at most as much again.
func (l *link) admitLocked(n int) error {
	if l.mu.err != nil {
		return l.mu.err
	}
	if !l.mu.out.empty() && l.mu.out.bytes+n > l.limit {
		return errFull
	}
	return nil
}

// flush sees to it that what waits is on its way. It never waits for the
// network.
func (l *link) flush() {
	l.mu.Lock()
	for !l.mu.busy && l.mu.err == nil && !l.mu.out.empty() {
		l.mu.busy = true
		l.takeLocked()
		if l.raw == nil {
			l.mu.Unlock()
			l.wake <- struct{}{} // empty: only the busy one fills it
			return
		}
		l.mu.Unlock()
		left := l.try()
		if left {
			l.wake <- struct{}{}
			return
		}
		l.mu.Lock()
		l.mu.busy = false
	}
	l.mu.Unlock()
}

// takeLocked makes what waits the thing being written.
func (l *link) takeLocked() {
	l.writing.reset()
	l.writing, l.mu.out = l.mu.out, l.writing
	l.rest = l.writing.vectors()
}

// try writes what the socket takes at once and reports whether anything is
// left or broken.
func (l *link) try() (left bool) {
	for len(l.rest) > 0 {
		l.tryBuf = l.rest[:min(len(l.rest), maxVectors)]
		want := total(l.tryBuf)
		if err := l.raw.Write(l.tryFn); err != nil || l.tryErr != nil {
			return true // the writer meets the error too
		}
		l.stats.sent(l.tried)
		l.rest = dropFront(l.rest, l.tried)
		if l.tried < want {
			return true
		}
	}
	return false
}

// writeOnce is one non-blocking write, called by RawConn.Write.
func (l *link) writeOnce(fd uintptr) bool {
	for {
		if b := l.tryBuf[0]; len(l.tryBuf) == 1 && len(b) <= socket.MaxBytes {
			l.tried, l.tryErr = socket.Call(unix.SYS_WRITE, fd, b)
		} else {
			l.tried, l.tryErr = unix.Writev(int(fd), l.tryBuf)
		}
		if l.tryErr != unix.EINTR {
			break
		}
	}
	if l.tryErr == unix.EAGAIN {
		l.tryErr = nil
		l.tried = 0
	}
	l.tried = max(l.tried, 0)
	return true
}

// write is the writer: it finishes what flush has left, and on the dialer's
// side it asks every second whether the other is there.
func (l *link) write() {
	t := time.NewTicker(pingInterval)
	defer t.Stop()
	for {
		select {
		case <-l.wake:
			l.finish()
		case <-t.C:
			l.watch()
		case <-l.done:
			return
		}
	}
}

// watch closes a connection from which nothing comes any more.
func (l *link) watch() {
	if now := sinceEpoch(); time.Duration(now-l.heard.Load()) > l.readTimeout {
		l.close(errSilence)
	} else if l.dialed {
		_ = l.putFrame(framePing, appendNanos(now)) // full: there is traffic
		l.flush()
	}
}

// finish writes until nothing waits.
func (l *link) finish() {
	for {
		if err := l.writeRest(); err != nil {
			l.close(fmt.Errorf("write: %w", err))
			return
		}
		l.mu.Lock()
		if l.mu.out.empty() || l.mu.err != nil {
			l.mu.busy = false
			l.mu.Unlock()
			return
		}
		l.takeLocked()
		l.mu.Unlock()
	}
}

func (l *link) writeRest() error {
	for len(l.rest) > 0 {
		var first [][]byte
		first, l.rest = chunk(l.rest, writeChunk)
		if err := l.conn.SetWriteDeadline(time.Now().Add(l.writeTimeout)); err != nil {
			return err
		}
		bufs := net.Buffers(first)
		n, err := bufs.WriteTo(l.inner())
		l.stats.sent(int(n))
		if err != nil {
			return err
		}
	}
	if l.raw == nil {
		return nil
	}
	return l.conn.SetWriteDeadline(time.Time{}) // or try would fail later
}

// inner is the connection as the net package knows it: only to that it writes
// several buffers at once, and reads more than socket.MaxBytes.
func (l *link) inner() net.Conn {
	if c, ok := l.conn.(*socket.Conn); ok {
		return c.Conn
	}
	return l.conn
}

// close ends the connection; the first reason counts.
func (l *link) close(err error) {
	l.once.Do(func() {
		l.mu.Lock()
		l.mu.err = err
		l.mu.out.reset()
		l.mu.Unlock()
		close(l.done)
		_ = l.conn.Close()
	})
}

// reason returns why the link was closed.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.err
}
