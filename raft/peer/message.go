package peer

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// The body of a frameMessage. From and To are not in it: the connection has
// them. A field is there if its bit is set, in this order:
//
//	type u8 | bits u16 | term | logTerm | index | commit | vote | rejectHint (uvarints)
//	context: length, bytes | snapshot: length, protobuf
//	entries: count, then per entry type u8, term, index, length; then all data
//
// Data comes last, so that it is sent from where it lies.
const (
	hasTerm = 1 << iota
	hasLogTerm
	hasIndex
	hasCommit
	hasVote
	hasRejectHint
	hasContext
	hasSnapshot
	hasEntries
	isRejected
	knownBits = 1<<iota - 1
)

// entryMetaBytes is the least that an entry takes beside its data.
const entryMetaBytes = 4

// messageBytes is about the size of m on the wire, at least its size there.
func messageBytes(m *raftpb.Message) int {
	n := headBytes + 3 + 6*binary.MaxVarintLen64 + len(m.GetContext()) + 2*binary.MaxVarintLen32
	if m.Snapshot != nil {
		n += proto.Size(m.GetSnapshot())
	}
	for _, e := range m.GetEntries() {
		n += 1 + 3*binary.MaxVarintLen64 + len(e.GetData())
	}
	return n
}

// appendMeta appends the body of m without the entries' data.
func appendMeta(dst []byte, m *raftpb.Message) []byte {
	at := len(dst)
	dst = append(dst, byte(m.GetType()), 0, 0)
	bits := 0
	for i, v := range [...]*uint64{m.Term, m.LogTerm, m.Index, m.Commit, m.Vote, m.RejectHint} {
		if v != nil {
			bits |= 1 << i
			dst = binary.AppendUvarint(dst, *v)
		}
	}
	if m.Context != nil {
		bits |= hasContext
		dst = appendBytes(dst, m.Context)
	}
	if m.Snapshot != nil {
		bits |= hasSnapshot
		snap, err := proto.Marshal(m.Snapshot)
		if err != nil {
			panic("peer: " + err.Error()) // numbers always encode
		}
		dst = appendBytes(dst, snap)
	}
	if m.GetReject() {
		bits |= isRejected
	}
	if len(m.Entries) > 0 {
		bits |= hasEntries
		dst = binary.AppendUvarint(dst, uint64(len(m.Entries)))
		for _, e := range m.Entries {
			dst = append(dst, byte(e.GetType()))
			dst = binary.AppendUvarint(dst, e.GetTerm())
			dst = binary.AppendUvarint(dst, e.GetIndex())
			dst = binary.AppendUvarint(dst, uint64(len(e.GetData())))
		}
	}
	binary.LittleEndian.PutUint16(dst[at+1:], uint16(bits))
	return dst
}

// message is a decoded raft message with its numbers in one piece of memory:
// raftpb wants a pointer for each.
type message struct {
	raftpb.Message
	typ     raftpb.MessageType
	from    uint64
	to      uint64
	fields  [6]uint64
	reject  bool
	pointer [1]*raftpb.Entry // most messages have at most one entry
	first   entry
}

// entry is the same for an entry.
type entry struct {
	raftpb.Entry
	typ         raftpb.EntryType
	term, index uint64
}

// decodeMessage reads the body of a frameMessage from a peer. The message
// shares memory with body.
func decodeMessage(body []byte, from, to uint64) (*raftpb.Message, error) {
	c := cursor{b: body}
	typ := raftpb.MessageType(c.byte())
	bits := 0
	if b := c.take(2); b != nil {
		bits = int(binary.LittleEndian.Uint16(b))
	}
	if _, known := raftpb.MessageType_name[int32(typ)]; c.err != nil || !known || bits&^knownBits != 0 {
		return nil, fmt.Errorf("%w: message type %d with bits %x", errFrame, typ, bits)
	}
	m := &message{typ: typ, from: from, to: to}
	m.Type, m.From, m.To = &m.typ, &m.from, &m.to
	for i, p := range [...]**uint64{&m.Term, &m.LogTerm, &m.Index, &m.Commit, &m.Vote, &m.RejectHint} {
		if bits&(1<<i) != 0 {
			m.fields[i] = c.uvarint()
			*p = &m.fields[i]
		}
	}
	if bits&isRejected != 0 {
		m.reject = true
		m.Reject = &m.reject
	}
	if bits&hasContext != 0 {
		m.Context = c.bytes()
	}
	if bits&hasSnapshot != 0 {
		m.Snapshot = &raftpb.Snapshot{}
		if err := proto.Unmarshal(c.bytes(), m.Snapshot); err != nil {
			return nil, fmt.Errorf("%w: snapshot: %w", errFrame, err)
		}
	}
	if bits&hasEntries != 0 {
		m.decodeEntries(&c)
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	return &m.Message, nil
}

func (m *message) decodeEntries(c *cursor) {
	n := c.uvarint()
	if n == 0 || n > uint64(len(c.b)/entryMetaBytes) {
		c.fail()
		return
	}
	var boxes []entry
	if n == 1 {
		m.Entries = m.pointer[:]
		m.Entries[0] = &m.first.Entry
	} else {
		boxes = make([]entry, n)
		m.Entries = make([]*raftpb.Entry, n)
	}
	sizes := make([]uint64, 0, 16)
	for i := range m.Entries {
		e := &m.first
		if n > 1 {
			e = &boxes[i]
			m.Entries[i] = &e.Entry
		}
		e.typ = raftpb.EntryType(c.byte())
		e.term, e.index = c.uvarint(), c.uvarint()
		e.Type, e.Term, e.Index = &e.typ, &e.term, &e.index
		sizes = append(sizes, c.uvarint())
	}
	for i, e := range m.Entries {
		if sizes[i] > 0 {
			e.Data = c.take(sizes[i])
		}
	}
}

// carriesBytes tells whether a message shares memory with its body.
func carriesBytes(body []byte) bool {
	return len(body) >= 3 && binary.LittleEndian.Uint16(body[1:])&(hasContext|hasSnapshot|hasEntries) != 0
}
