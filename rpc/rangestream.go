package rpc

import (
	"sync"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/engine/auth"

	"google.golang.org/protobuf/encoding/protowire"
)

// rangeSession serves one RangeStream: a Range on one pinned revision in
// chunks. Only the last chunk carries header, more and count.
type rangeSession struct {
	stream *Stream
	req    pb.RangeRequest
	raw    []byte // what req points into
	asked  time.Time

	mu struct {
		sync.Mutex
		ready bool // the read may run
	}
	cursor RangeCursor   // owned by Next
	id     auth.Identity // whose read it is; owned by Next
}

func (s *Server) openRangeStream(st *Stream) Session {
	return &rangeSession{stream: st}
}

func (r *rangeSession) Recv(msg []byte) error {
	r.raw = append([]byte(nil), msg...)
	if err := decode(&r.raw, &r.req); err != nil {
		return err
	}
	if err := checkRangeStream(&r.req); err != nil {
		return err
	}
	r.asked = r.stream.srv.cfg.Clock.now()
	if r.req.Serializable || r.stream.srv.cfg.Raft.ReadIndex(r) {
		r.ready(nil)
	}
	return nil
}

// ReadReady implements ReadWaiter.
func (r *rangeSession) ReadReady(err error) {
	srv := r.stream.srv
	srv.reads.ended(err, srv.cfg.Clock.now().Sub(r.asked))
	r.ready(err)
}

func (r *rangeSession) ready(err error) {
	if err != nil {
		r.stream.Fail(err)
		return
	}
	r.mu.Lock()
	r.mu.ready = true
	r.mu.Unlock()
	r.stream.Wake()
}

func (r *rangeSession) RecvEnd() bool { return false }

func (r *rangeSession) Next(out *Out) (Next, error) {
	r.mu.Lock()
	ready := r.mu.ready
	r.mu.Unlock()
	if !ready {
		return NextIdle, nil
	}
	cfg := &r.stream.srv.cfg
	if r.cursor == nil {
		if err := r.permit(); err != nil {
			return NextEnd, err
		}
		r.cursor = cfg.OpenRange(&r.req, cfg.MaxRequestBytes)
	}
	b, rev, done, err := r.cursor.Next(out.begin())
	if changed := r.stream.srv.still(r.id); changed != nil {
		err = changed
	}
	if err != nil {
		return NextEnd, err
	}
	out.end(b, r.wrap(b, rev))
	if done {
		return NextEnd, nil
	}
	return NextMore, nil
}

// permit checks the right to read the range, when the read may run.
func (r *rangeSession) permit() (err error) {
	s := r.stream.srv
	if r.id, err = s.identify(r.stream.Ctx); err != nil {
		return err
	}
	acc := s.cfg.Auth.Access(r.id)
	return acc.Read(r.req.Key, r.req.RangeEnd)
}

// wrap puts the header, if this is the last chunk, and the tag and length of
// RangeStreamResponse.range_response in front of the body.
func (r *rangeSession) wrap(b []byte, rev int64) (off int) {
	off = headerRoom
	if rev != 0 {
		off = r.stream.srv.header.putBefore(b, headerRoom, rev)
	}
	var buf [16]byte
	pre := protowire.AppendTag(buf[:0], 1, protowire.BytesType)
	pre = protowire.AppendVarint(pre, uint64(len(b)-off))
	off -= len(pre)
	copy(b[off:], pre)
	return off
}

func (r *rangeSession) Close() {}
