package peer

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// spliceBytes is the size from which an entry's data is sent from where it
// lies; smaller data is copied, which costs less than another vector element.
const spliceBytes = 2 << 10

// keepOutbox bounds the buffer that is kept between writes.
const keepOutbox = 256 << 10

// outbox is what waits to be written to one connection: frames in one buffer,
// and data of others that belongs between its bytes.
type outbox struct {
	buf   []byte
	cuts  []cut
	bytes int      // in all
	vec   [][]byte // scratch of vectors
	whole bool     // never splice: TLS would make a record of each piece
}

// cut says that data is to be written after buf[:at].
type cut struct {
	at   int
	data []byte
}

func (o *outbox) empty() bool { return o.bytes == 0 }

func (o *outbox) reset() {
	clear(o.cuts)
	clear(o.vec)
	*o = outbox{buf: o.buf[:0], cuts: o.cuts[:0], vec: o.vec[:0], whole: o.whole}
	if cap(o.buf) > keepOutbox {
		o.buf = nil
	}
}

// addFrame appends a small frame.
func (o *outbox) addFrame(typ frameType, body []byte) {
	before := len(o.buf)
	o.buf = appendFrame(o.buf, typ, body)
	o.bytes += len(o.buf) - before
}

// addFrameOf appends a frame whose body is head and data. Data is immutable and
// written from where it lies, if it is large.
func (o *outbox) addFrameOf(typ frameType, head, data []byte) {
	at := len(o.buf)
	o.buf = append(appendHead(o.buf, typ, len(head)+len(data)), head...)
	sealHead(o.buf[at:at+headBytes], o.buf[at+headBytes:], data)
	if len(data) < spliceBytes || o.whole {
		o.buf = append(o.buf, data...)
	} else {
		o.cuts = append(o.cuts, cut{len(o.buf), data})
	}
	o.bytes += headBytes + len(head) + len(data)
}

// addMessage appends a raft message. The data of its entries is immutable, so
// that it may be written later from where it lies.
func (o *outbox) addMessage(m *raftpb.Message) {
	at := len(o.buf)
	o.buf = appendHead(o.buf, frameMessage, 0)
	o.buf = appendMeta(o.buf, m)
	meta, spliced := len(o.buf), 0
	for _, e := range m.GetEntries() {
		if d := e.GetData(); len(d) < spliceBytes || o.whole {
			o.buf = append(o.buf, d...)
		} else {
			o.cuts = append(o.cuts, cut{len(o.buf), d})
			spliced += len(d)
		}
	}
	o.seal(at, meta, m, len(o.buf)-at-headBytes+spliced)
	o.bytes += len(o.buf) - at + spliced
}

// seal fills in length and hash of the message's frame that starts at at.
func (o *outbox) seal(at, meta int, m *raftpb.Message, length int) {
	h := o.buf[at : at+headBytes]
	copy(h, appendHead(nil, frameMessage, length))
	parts := append(o.vec[:0], o.buf[at+headBytes:meta])
	for _, e := range m.GetEntries() {
		parts = append(parts, e.GetData())
	}
	sealHead(h, parts...)
	clear(parts)
	o.vec = parts[:0]
}

// vectors returns everything in order of writing.
func (o *outbox) vectors() [][]byte {
	v, from := o.vec[:0], 0
	for _, c := range o.cuts {
		if c.at > from {
			v = append(v, o.buf[from:c.at])
			from = c.at
		}
		v = append(v, c.data)
	}
	if from < len(o.buf) {
		v = append(v, o.buf[from:])
	}
	o.vec = v
	return v
}

// dropFront removes n written bytes from the front of vectors.
func dropFront(v [][]byte, n int) [][]byte {
	for n > 0 && n >= len(v[0]) {
		n -= len(v[0])
		v = v[1:]
	}
	if n > 0 {
		v[0] = v[0][n:]
	}
	return v
}

// total is the number of bytes in v.
func total(v [][]byte) (n int) {
	for _, b := range v {
		n += len(b)
	}
	return n
}

// chunk returns the vectors of at most limit bytes, but at least one piece, and
// the rest.
func chunk(v [][]byte, limit int) (first, rest [][]byte) {
	n := 0
	for i, b := range v {
		if n+len(b) > limit {
			room := limit - n
			if room > 0 {
				first = append(slices.Clone(v[:i]), b[:room])
				rest = append([][]byte{b[room:]}, v[i+1:]...)
				return first, rest
			}
			return v[:i], v[i:]
		}
		n += len(b)
	}
	return v, nil
}
