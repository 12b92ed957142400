package socket

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxBytes is the most that is read or written in one such call: what takes longer
// to copy should let others run.
const MaxBytes = 64 << 10

// Conn is a TCP or Unix connection. All of net.Conn holds, and Read and Write may be
// called by several goroutines.
type Conn struct {
	net.Conn
	raw         syscall.RawConn
	read, write half
}

// half is one direction. The mutex is held while a call waits for the network, as
// that of the connection itself is.
type half struct {
	mu   sync.Mutex
	buf  []byte
	n    int
	err  error
	call func(fd uintptr) bool
}

// Wrap returns conn as a Conn, or as it is if it has no socket of its own, as under
// TLS.
func Wrap(conn net.Conn) net.Conn {
	if _, ok := conn.(*Conn); ok {
		return conn
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return conn
	}
	c := &Conn{Conn: conn, raw: raw}
	c.read.call, c.write.call = c.readOnce, c.writeAll
	return c
}

// SyscallConn implements syscall.Conn.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return c.Conn.Read(b)
	}
	h := &c.read
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf, h.n, h.err = b[:min(len(b), MaxBytes)], 0, nil
	err := c.raw.Read(h.call)
	h.buf = nil
	switch {
	case err != nil: // closed, or the deadline
		return 0, err
	case h.err != nil:
		return 0, c.failed("read", h.err)
	case h.n == 0:
		return 0, io.EOF
	}
	return h.n, nil
}

// readOnce reports whether there was something to read.
func (c *Conn) readOnce(fd uintptr) bool {
	h := &c.read
	h.n, h.err = Call(unix.SYS_READ, fd, h.buf)
	return h.err != unix.EAGAIN
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	if len(b) == 0 || len(b) > MaxBytes {
		return c.Conn.Write(b)
	}
	h := &c.write
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf, h.n, h.err = b, 0, nil
	err := c.raw.Write(h.call)
	h.buf = nil
	if err == nil && h.err != nil {
		err = c.failed("write", h.err)
	}
	return h.n, err
}

// writeAll reports whether everything is written, or never will be.
func (c *Conn) writeAll(fd uintptr) bool {
	h := &c.write
	for h.n < len(h.buf) {
		n, err := Call(unix.SYS_WRITE, fd, h.buf[h.n:])
		if err == unix.EAGAIN {
			return false
		}
		if h.err = err; err != nil {
			return true
		}
		h.n += n
	}
	return true
}

// failed is the error as the net package has it.
func (c *Conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}

// Call is read(2) or write(2), by its number, of a non-blocking socket. b is not
// empty and has at most MaxBytes.
func Call(number, fd uintptr, b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
