package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// magic begins every connection that a member opens. Its first byte can begin
// neither HTTP nor TLS, and a line end inside shows a connection that is
// treated as text on its way.
const magic = "\xf1quire\r\n"

// The versions of this protocol that this program speaks.
const (
	minProtocol = 1
	maxProtocol = 1
)

// Protocol names the versions of the peer protocol that this program speaks.
func Protocol() string { return fmt.Sprintf("%d-%d", minProtocol, maxProtocol) }

// kind is what a connection is for. Each has its own, so that what is urgent
// does not queue behind what is big.
type kind byte

const (
	control  kind = 1 // heartbeats, votes, acknowledgements, read indexes
	bulk     kind = 2 // entries and forwarded proposals
	calls    kind = 3 // requests between members
	transfer kind = 4 // the content of a snapshot, opened by the member that takes it
)

func (k kind) String() string {
	switch k {
	case control:
		return "control"
	case bulk:
		return "bulk"
	case calls:
		return "calls"
	case transfer:
		return "transfer"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

func (k kind) maxFrame() int {
	if k == bulk {
		return maxBulkFrame
	}
	return maxControlFrame
}

// hello is what the dialer says of itself and whom it expects.
type hello struct {
	min, max      uint64 // protocol versions
	kind          kind
	cluster       uint64
	from, to      uint64
	serverVersion string
	peerURLs      []string // where from can be reached
}

// maxHelloURLs bounds the URLs that are taken from a hello; a member has one
// or two.
const maxHelloURLs = 16

func (h *hello) encode() []byte {
	b := binary.AppendUvarint(nil, h.min)
	b = binary.AppendUvarint(b, h.max)
	b = append(b, byte(h.kind))
	for _, v := range []uint64{h.cluster, h.from, h.to} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = appendBytes(b, []byte(h.serverVersion))
	b = binary.AppendUvarint(b, uint64(len(h.peerURLs)))
	for _, u := range h.peerURLs {
		b = appendBytes(b, []byte(u))
	}
	return b
}

// decode reads a hello. Bytes behind the known fields are a later version's.
func (h *hello) decode(body []byte) error {
	c := cursor{b: body}
	h.min, h.max = c.uvarint(), c.uvarint()
	h.kind = kind(c.byte())
	h.cluster, h.from, h.to = c.u64(), c.u64(), c.u64()
	h.serverVersion = string(c.bytes())
	n := c.uvarint()
	if n > maxHelloURLs {
		return fmt.Errorf("%w: %d URLs in a hello", errFrame, n)
	}
	for range n {
		h.peerURLs = append(h.peerURLs, string(c.bytes()))
	}
	return c.err
}

// refusal is why a connection is not accepted; 0: it is.
type refusal byte

const (
	accepted        refusal = 0
	refusedVersion  refusal = 1 // no common protocol version
	refusedCluster  refusal = 2 // another cluster
	refusedIdentity refusal = 3 // meant for another member
	refusedRemoved  refusal = 4 // the dialer was removed from the cluster
	refusedKind     refusal = 5 // an unknown kind of connection
	refusedBusy     refusal = 6 // too many connections
)

// The refusals as errors, in etcd's words where it has them.
var (
	errIncompatible = errors.New("incompatible version")
	errCluster      = errors.New("cluster ID mismatch")
	errIdentity     = errors.New("to field mismatch")
	errRemoved      = errors.New("the member has been permanently removed from the cluster")
	errKind         = errors.New("unknown kind of connection")
	errBusy         = errors.New("too many connections")
)

func (r refusal) err() error {
	switch r {
	case accepted:
		return nil
	case refusedVersion:
		return errIncompatible
	case refusedCluster:
		return errCluster
	case refusedIdentity:
		return errIdentity
	case refusedRemoved:
		return errRemoved
	case refusedKind:
		return errKind
	case refusedBusy:
		return errBusy
	}
	return fmt.Errorf("refused for reason %d", byte(r))
}

// welcome is the listener's answer: who it is and whether it goes on.
type welcome struct {
	refusal       refusal
	version       uint64 // the protocol version of this connection
	cluster, id   uint64
	serverVersion string
}

func (w *welcome) encode() []byte {
	b := append([]byte(nil), byte(w.refusal))
	b = binary.AppendUvarint(b, w.version)
	b = binary.LittleEndian.AppendUint64(b, w.cluster)
	b = binary.LittleEndian.AppendUint64(b, w.id)
	return appendBytes(b, []byte(w.serverVersion))
}

func (w *welcome) decode(body []byte) error {
	c := cursor{b: body}
	w.refusal = refusal(c.byte())
	w.version = c.uvarint()
	w.cluster, w.id = c.u64(), c.u64()
	w.serverVersion = string(c.bytes())
	return c.err
}

// commonVersion is the newest protocol version that both speak, 0: none.
func commonVersion(h *hello) uint64 {
	v := min(h.max, maxProtocol)
	if v < max(h.min, minProtocol) {
		return 0
	}
	return v
}
