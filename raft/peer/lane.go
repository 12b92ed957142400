package peer

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// lane keeps one connection to one peer open, for sending. While there is none
// what is sent is dropped at once: raft sends again, and calls wait by
// themselves.
type lane struct {
	t       *Transport
	p       *peer
	kind    kind
	open    atomic.Pointer[caller]
	touched bool          // owned by Send
	now     chan struct{} // ends the pause between attempts; holds one
	done    chan struct{}
}

func newLane(t *Transport, p *peer, k kind) *lane {
	return &lane{t: t, p: p, kind: k, now: make(chan struct{}, 1), done: make(chan struct{})}
}

var errNoLink = errors.New("not connected")

// put adds a message to what waits; flush sends it.
func (ln *lane) put(m *raftpb.Message) error {
	c := ln.open.Load()
	if c == nil {
		return errNoLink
	}
	return c.link.put(m)
}

func (ln *lane) flush() {
	if c := ln.open.Load(); c != nil {
		c.link.flush()
	}
}

// dialNow ends the pause between two attempts.
func (ln *lane) dialNow() {
	select {
	case ln.now <- struct{}{}:
	default:
	}
}

// run dials and reads until ctx ends. The lane for calls dials only when one
// waits.
func (ln *lane) run(ctx context.Context) {
	defer close(ln.done)
	var pause backoff
	for ctx.Err() == nil {
		if ln.kind == calls {
			select {
			case <-ln.now:
			case <-ctx.Done():
				return
			}
		}
		l, err := ln.t.connect(ctx, ln.p, ln.kind)
		if err != nil {
			if ctx.Err() == nil {
				ln.p.dialFailed(ln.kind, err)
				ln.wait(ctx, pause.pause(err))
			}
			continue
		}
		began := time.Now()
		ln.serve(ctx, l)
		if time.Since(began) > lastBackoff/10 {
			pause.reset()
		}
		if ln.kind != calls {
			ln.wait(ctx, pause.pause(nil))
		}
	}
}

func (ln *lane) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ln.now:
	case <-ctx.Done():
	}
}

// serve runs one connection until it ends.
func (ln *lane) serve(ctx context.Context, l *link) {
	c := newCaller(l)
	ln.open.Store(c)
	ln.p.up(ln.kind)
	err := c.run(ctx)
	ln.open.Store(nil)
	if ctx.Err() == nil {
		ln.p.down(ln.kind, err)
	}
}
