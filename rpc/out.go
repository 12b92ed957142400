package rpc

import "sync"

const (
	// headerRoom is what stands in front of a body at most: the header field
	// (tag, length, three uvarints and their tags: 46 bytes) and, for a chunk
	// of RangeStream, the tag and length of the message that wraps it.
	headerRoom = 64
	// keepBufBytes bounds what a pooled buffer retains, so that one large
	// list does not stay resident a thousand times.
	keepBufBytes = 4 << 20
)

// Out holds one outgoing message. A producer appends the body to begin() and
// then puts header and wrapping into the room in front of it, so that nothing
// is moved. The zero value is ready.
type Out struct {
	buf *outBuf
	off int // where the message starts in buf.data
	// events is how many events the message holds, for metrics.
	events int
}

// outBuf is the pooled memory of one message. It is its own release target:
// Get and Put have the shape that grpc-go asks of a buffer pool, so that the
// buffer comes back when the last frame has been written.
type outBuf struct {
	data []byte // headerRoom reserved bytes, then the body
	view []byte // the message in data, while grpc-go holds it
}

var outBufs = sync.Pool{New: func() any { return &outBuf{data: make([]byte, 0, 1024)} }}

// Get is never called: nobody draws from a single buffer.
func (b *outBuf) Get(int) *[]byte { panic("rpc: outBuf is not a source of buffers") }

// Put releases the buffer.
func (b *outBuf) Put(*[]byte) { b.release() }

func (b *outBuf) release() {
	b.view = nil
	if cap(b.data) > keepBufBytes {
		return
	}
	b.data = b.data[:0]
	outBufs.Put(b)
}

// begin returns an empty buffer behind the room for the header, to which the
// body is appended; end takes it back.
func (o *Out) begin() []byte {
	if o.buf == nil {
		o.buf = outBufs.Get().(*outBuf)
	}
	if cap(o.buf.data) < headerRoom {
		o.buf.data = make([]byte, 0, 1024)
	}
	return o.buf.data[:headerRoom]
}

// end stores the buffer with the message at off.
func (o *Out) end(b []byte, off int) { o.buf.data, o.off = b, off }

// Bytes returns the message, valid until Reset or take.
func (o *Out) Bytes() []byte {
	if o.buf == nil {
		return nil
	}
	return o.buf.data[o.off:]
}

// take hands the memory over to the caller, who releases it.
func (o *Out) take() *outBuf {
	b := o.buf
	b.view = b.data[o.off:]
	o.buf, o.off = nil, 0
	return b
}

// Reset forgets the message and keeps the memory.
func (o *Out) Reset() {
	if o.buf != nil {
		o.buf.data = o.buf.data[:0]
	}
	o.off = 0
}

// free forgets the message and the memory.
func (o *Out) free() {
	if o.buf != nil {
		o.buf.release()
	}
	o.buf, o.off = nil, 0
}
