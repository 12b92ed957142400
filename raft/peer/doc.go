// Package peer connects the members of a cluster: it carries raft's messages
// over TCP or TLS, lets one member call another, and moves snapshots. It knows
// who is a peer and where, and nothing of what the messages mean, of keys and
// of files.
//
// # Terms
//
// A link is one established connection. A lane is the outgoing side of one kind
// of connection to one peer; it keeps a link open. A greeting is the hello of
// the dialer and the welcome of the listener. A stranger is a peer that is not
// in the membership here, because this member lags. A pull is the taking of a
// snapshot, an offer the giving.
//
// # Connections
//
// A member dials each peer, so that there is a set of connections per direction:
//
//	control   heartbeats, votes, acknowledgements, read indexes, snapshot notices
//	bulk      entries, forwarded proposals
//	calls     requests of one member to another; opened by the first
//	transfer  the content of one snapshot; opened by the member that takes it
//
// What is urgent never queues behind what is big. A message to a healthy peer
// is written by the goroutine that sends it, in the same system call as all
// others of that Send to that lane; what the socket does not take at once is
// left to the link's writer. So a stalled peer blocks nobody, and all it costs
// is its queue.
//
// # The protocol
//
// All integers are little-endian. A connection begins with 8 bytes of magic
// from the dialer, f1 "quire" 0d 0a, which can be neither HTTP nor TLS; whatever
// else comes is given to HTTP(). Then both sides send frames:
//
//	0  u32  length of the body
//	4  u8   type
//	5  u8×3 zero
//	8  u64  xxhash64 of bytes 0–7 and the body
//	16      body
//
//	1 hello     min, max protocol version (uvarints) | kind u8 | cluster, from,
//	            to u64 | server version | count, peer URLs (length, bytes)
//	2 welcome   refusal u8 | version uvarint | cluster, id u64 | server version
//	3 message   see message.go
//	4 ping, 5 pong   8 bytes that come back
//	6 request   id u64 | method u8 | milliseconds u32 | body
//	7 response  id u64 | 0: result, 1: error text
//
// The newest protocol version that both speak is used; without one, and with
// another cluster, another addressee or a removed member, the listener refuses
// with a code, and each side logs one line, again after a minute. The dialer
// tries again for ever: the next one at that address may be the right one.
//
// # Bounds
//
//	bytes that wait for a link      controlLimit, bulkLimit, callsLimit    full: dropped, raft is told
//	a frame                         maxControlFrame, maxBulkFrame          beyond: the link is closed
//	connections not greeted         maxGreets, greetTimeout                beyond: closed
//	connections of a peer           one of control and bulk, maxInbound    newest counts; refused
//	strangers                       maxStrangers                           refused
//	calls and reads under way       maxCallsWaiting, maxReadsWaiting       refused
//	silence                         ReadTimeout; the dialer pings          the link is closed
//	a write                         WriteTimeout for each 256 KiB          the link is closed
//
// Memory for a frame grows as its bytes come, not with the length it claims.
//
// # Ownership and locks
//
// Transport.peers is a map that is replaced, never changed; Transport.mu
// excludes its writers. peer.mu guards the health of a peer, link.mu its outbox;
// neither is held across I/O or a call of raft. Transport.mu before peer.mu.
// Send runs on one goroutine at a time, which owns touched, later and beats.
// Send never calls back into raft; each peer has a goroutine for that.
//
// # Failure
//
// Messages may be lost at any time: raft repeats them. When an append may be
// lost, raft is told by ReportUnreachable. Every MsgSnap given to Send ends in
// exactly one ReportSnapshot, unless raft itself has sent a newer one. A frame
// that is wrong in any way ends its link.
package peer
