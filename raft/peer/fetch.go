package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// errNoSnapshot answers who wants a snapshot that is still to be made.
var errNoSnapshot = errors.New("the snapshot is being made")

// wanted offers a state to a peer that has asked for one itself.
func (p *peer) wanted(atLeast uint64) ([]byte, error) {
	index, term, _, ok := p.t.cfg.Snapshots.Offer(atLeast)
	if !ok {
		return nil, errNoSnapshot
	}
	p.offerState(index, term)
	return binary.AppendUvarint(binary.AppendUvarint(nil, index), term), nil
}

// Take is given a snapshot that FetchSnapshot was asked for. fetch reads from it, as
// in Snapshots.Stage.
type Take = func(ctx context.Context, manifest []byte, fetch func(blob uint32, p []byte, off int64) (int, error)) error

// FetchSnapshot asks a member for a state of at least an index and has take take
// it. raft has no part in that: it is for a member that cannot run it yet. An answer
// that there is no such state yet is an error like others: the caller asks again.
func (t *Transport) FetchSnapshot(ctx context.Context, from, atLeast uint64, take Take) error {
	p := t.find(from)
	if p == nil {
		return fmt.Errorf("%w: %x", ErrUnknownMember, from)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pl := &pull{t: t, p: p, began: time.Now(), cancel: cancel, dialing: make(chan struct{}, 1), ahead: make(chan struct{}, snapAhead)}
	defer pl.hangUp()
	b, err := pl.ask(ctx, snapWanted, binary.AppendUvarint(nil, atLeast))
	if err != nil {
		return err
	}
	c := cursor{b: b}
	pl.index, pl.term = c.uvarint(), c.uvarint()
	if err := c.end(); err != nil {
		return err
	}
	manifest, err := pl.retry(ctx, snapManifest, pl.name())
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	err = take(ctx, manifest, func(blob uint32, b []byte, off int64) (int, error) { return pl.fetch(ctx, blob, b, off) })
	told := byte(0)
	if err == nil {
		told = 1
	}
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer stop()
	_, _ = pl.ask(end, snapEnd, append(pl.name(), told)) // else the offer ends by its timeout
	return err
}
