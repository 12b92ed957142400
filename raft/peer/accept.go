package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

const (
	// greetTimeout is how long a connection may take to say what it is.
	greetTimeout = 10 * time.Second
	// maxGreets bounds the connections that have not said it. Above, new ones
	// are closed at once: a flood keeps nobody from dialing again.
	maxGreets = 128
	// maxInbound bounds the connections of one peer and kind beyond control and
	// bulk, of which the newest counts.
	maxInbound = 8
	// acceptPause is the wait after a failed accept, as when files run out.
	acceptPause = 50 * time.Millisecond
)

// Listener sorts what comes to the peer port: members of quire go to the
// Transport, everything else to HTTP(). It works before there is a Transport,
// so that a member that starts can be asked whether it is one.
type Listener struct {
	log       *zap.Logger
	transport atomic.Pointer[Transport]
	http      *splitListener
	greets    chan struct{} // connections that have not said what they are
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
}

// NewListener returns a listener without sockets; Serve brings them.
func NewListener(log *zap.Logger) *Listener {
	l := &Listener{log: log, http: newSplitListener(), greets: make(chan struct{}, maxGreets)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Attach names the transport that members are for. Before that they are turned
// away and come again.
func (ln *Listener) Attach(t *Transport) { ln.transport.Store(t) }

// HTTP is a listener of the connections that speak HTTP. Somebody has to accept
// them: beyond maxHTTPWaiting they are closed.
func (ln *Listener) HTTP() net.Listener { return ln.http }

// Close ends the sorting. The sockets are closed by whoever opened them, before.
func (ln *Listener) Close() {
	ln.cancel()
	_ = ln.http.Close()
	ln.wg.Wait()
}

// Serve sorts the connections of one socket until it is closed. For TLS it gives
// out tls.Conns. handshake, if not nil, makes one of a connection that begins
// as TLS on a socket that carries both; it closes what it refuses.
func (ln *Listener) Serve(lis net.Listener, handshake func(net.Conn) (net.Conn, error)) error {
	for {
		conn, err := lis.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ln.ctx.Err() != nil {
				return net.ErrClosed
			}
			ln.log.Warn("cannot accept a connection on the peer endpoint", zap.Error(err))
			select {
			case <-time.After(acceptPause):
			case <-ln.ctx.Done():
			}
			continue
		}
		select {
		case ln.greets <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		ln.wg.Go(func() {
			defer func() { <-ln.greets }()
			ln.sort(conn, handshake)
		})
	}
}

// firstTLS is the first byte of a TLS connection.
const firstTLS = 22

// sort finds out what a connection is and hands it on.
func (ln *Listener) sort(conn net.Conn, handshake func(net.Conn) (net.Conn, error)) {
	ctx, cancel := context.WithTimeout(ln.ctx, greetTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		_ = conn.Close()
		return
	}
	if first[0] == firstTLS && handshake != nil && stop() {
		secure, err := handshake(&prefixedConn{Conn: conn, prefix: first[:]})
		if err != nil {
			return
		}
		ln.sort(secure, nil)
		return
	}
	if first[0] != magic[0] {
		if stop() {
			ln.http.push(&prefixedConn{Conn: conn, prefix: first[:]})
		} else {
			_ = conn.Close()
		}
		return
	}
	in, err := ln.greet(conn)
	switch {
	case err == nil && stop():
		in.start()
		return
	case in != nil:
		in.leave()
	}
	_ = conn.Close()
}

// greet reads the rest of a member's greeting and answers it.
func (ln *Listener) greet(conn net.Conn) (*inbound, error) {
	rest := make([]byte, len(magic)-1)
	_, err := io.ReadFull(conn, rest)
	if err == nil && string(rest) != magic[1:] {
		err = fmt.Errorf("%w: greeting %q", errFrame, rest)
	}
	var body []byte
	if err == nil {
		body, err = readFrame(conn, frameHello)
	}
	var h hello
	if err == nil {
		err = h.decode(body)
	}
	if err != nil {
		ln.log.Warn("rejected connection on peer endpoint", zap.String("remote-addr", conn.RemoteAddr().String()), zap.Error(err))
		return nil, err
	}
	t := ln.transport.Load()
	if t == nil {
		return nil, errNotReady
	}
	return t.answer(conn, &h)
}

// errNotReady: the member is still starting; its peers come again.
var errNotReady = errors.New("the member is starting")

// answer accepts or refuses a member.
func (t *Transport) answer(conn net.Conn, h *hello) (*inbound, error) {
	in, why := t.admit(conn, h)
	w := welcome{refusal: why, version: commonVersion(h), cluster: t.cfg.ClusterID, id: t.cfg.ID, serverVersion: t.cfg.ServerVersion}
	_, err := conn.Write(appendFrame(nil, frameWelcome, w.encode()))
	return in, errors.Join(why.err(), err)
}

// begin counts a goroutine that Close waits for, unless Close has begun.
func (t *Transport) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return false
	}
	t.wg.Add(1)
	return true
}

// admit decides about a hello and logs a refusal.
func (t *Transport) admit(conn net.Conn, h *hello) (*inbound, refusal) {
	why := t.judge(h)
	if why == accepted {
		if p := t.findOrMeet(h); p == nil {
			why = refusedBusy
		} else if in := p.enter(t.newLink(conn, h.kind, p)); in != nil {
			return in, accepted
		} else {
			why = refusedBusy
		}
	}
	t.refused.log(t, h, why, conn.RemoteAddr())
	return nil, why
}

func (t *Transport) judge(h *hello) refusal {
	switch {
	case commonVersion(h) == 0:
		return refusedVersion
	case h.cluster != t.cfg.ClusterID:
		return refusedCluster
	case h.to != t.cfg.ID || h.from == t.cfg.ID || h.from == 0:
		return refusedIdentity
	case t.cfg.Removed(h.from):
		return refusedRemoved
	case h.kind < control || h.kind > transfer:
		return refusedKind
	}
	return accepted
}

// refusals logs what is refused, in etcd's words, each once a minute.
type refusals struct {
	mu struct {
		sync.Mutex
		at map[[2]uint64]time.Time // member and refusal → when it was logged
	}
}

// maxRefusals bounds the memory for that; a flood of made-up members is logged
// more often instead.
const maxRefusals = 256

func (r *refusals) due(from uint64, why refusal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := [2]uint64{from, uint64(why)}
	if time.Since(r.mu.at[k]) < repeatLog {
		return false
	}
	if r.mu.at == nil || len(r.mu.at) >= maxRefusals {
		r.mu.at = map[[2]uint64]time.Time{}
	}
	r.mu.at[k] = time.Now()
	return true
}

func (r *refusals) log(t *Transport, h *hello, why refusal, addr net.Addr) {
	if !r.due(h.from, why) {
		return
	}
	fields := []zap.Field{
		hexID("local-member-id", t.cfg.ID), hexID("remote-peer-id-from", h.from), zap.String("remote-addr", addr.String()),
		zap.String("remote-peer-server-version", h.serverVersion),
	}
	switch why {
	case refusedVersion:
		t.log.Warn("failed version compatibility check", append(fields, zap.String("local-member-server-version", t.cfg.ServerVersion),
			zap.Uint64("remote-peer-protocol-minimum", h.min), zap.Uint64("remote-peer-protocol-maximum", h.max), zap.Error(why.err()))...)
	case refusedCluster:
		t.log.Warn("request cluster ID mismatch", append(fields, hexID("local-member-cluster-id", t.cfg.ClusterID), hexID("remote-peer-cluster-id", h.cluster))...)
	case refusedIdentity:
		t.log.Warn("ignored streaming request; ID mismatch", append(fields, hexID("remote-peer-id-header", h.to))...)
	case refusedRemoved:
		t.log.Warn("rejected stream from remote peer because it was removed", fields...)
	default:
		t.log.Warn("rejected connection on peer endpoint", append(fields, zap.Stringer("connection", h.kind), zap.Error(why.err()))...)
	}
}

// inbound is one connection that a peer has opened.
type inbound struct {
	t        *Transport
	p        *peer
	link     *link
	ctx      context.Context
	cancel   context.CancelFunc
	msgs     []*raftpb.Message // of one read
	working  chan struct{}     // calls being answered
	handlers sync.WaitGroup
}

// enter registers a connection; nil: too many, or the peer is being stopped.
func (p *peer) enter(l *link) *inbound {
	in := &inbound{t: p.t, p: p, link: l}
	switch l.kind {
	case calls:
		in.working = make(chan struct{}, maxCallsWaiting)
	case transfer:
		in.working = make(chan struct{}, maxReadsWaiting)
	}
	in.ctx, in.cancel = context.WithCancel(p.ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	same := 0
	for other := range p.mu.inbound {
		if other.link.kind != l.kind {
			continue
		}
		same++
		if l.kind == control || l.kind == bulk {
			other.link.close(errors.New("the peer has opened another connection"))
		}
	}
	if p.mu.stopped || (l.kind == calls || l.kind == transfer) && same >= maxInbound {
		in.cancel()
		return nil
	}
	p.mu.inbound[in] = true
	return in
}

func (in *inbound) leave() {
	in.cancel()
	in.link.close(errClosed)
	in.p.mu.Lock()
	defer in.p.mu.Unlock()
	delete(in.p.mu.inbound, in)
}

// start serves the connection from now on.
func (in *inbound) start() {
	if !in.t.begin() {
		in.leave()
		return
	}
	go func() {
		defer in.t.wg.Done()
		in.run()
	}()
}

// run serves the connection until it ends.
func (in *inbound) run() {
	defer in.leave()
	written := make(chan struct{})
	go func() {
		defer close(written)
		in.link.write()
	}()
	in.p.heard()
	in.t.log.Info("established TCP streaming connection with remote peer", zap.Stringer("connection", in.link.kind), hexID("remote-peer-id", in.p.id))
	err := in.link.read(in)
	if in.ctx.Err() == nil && in.link.kind != transfer {
		in.t.log.Warn("lost TCP streaming connection with remote peer", zap.Stringer("connection", in.link.kind),
			hexID("local-member-id", in.t.cfg.ID), hexID("remote-peer-id", in.p.id), zap.Error(err))
	}
	if errors.Is(err, errFrame) {
		in.p.stats.receiveFailures.Add(1)
	}
	in.cancel()
	in.handlers.Wait()
	<-written
}

// frame implements received.
func (in *inbound) frame(l *link, typ frameType, body []byte, owned bool) error {
	switch {
	case typ == frameMessage && (l.kind == control || l.kind == bulk):
		return in.message(body, owned)
	case typ == frameRequest && (l.kind == calls || l.kind == transfer):
		return in.serveRequest(body, owned)
	}
	return fmt.Errorf("%w: type %d on a connection for %v", errFrame, typ, l.kind)
}

func (in *inbound) message(body []byte, owned bool) error {
	if !owned && carriesBytes(body) {
		body = append([]byte(nil), body...)
	}
	m, err := decodeMessage(body, in.p.id, in.t.cfg.ID)
	if err != nil {
		return err
	}
	if m.GetType() == raftpb.MsgSnap && in.t.cfg.Snapshots != nil {
		in.t.pull(in.p, m)
		return nil
	}
	in.msgs = append(in.msgs, m)
	return nil
}

// pause implements received: what one read brought becomes one step of raft.
func (in *inbound) pause(l *link) {
	if len(in.msgs) > 0 {
		in.t.cfg.Raft.StepAll(in.msgs)
		clear(in.msgs)
		in.msgs = in.msgs[:0]
	}
	l.flush() // pongs
}
