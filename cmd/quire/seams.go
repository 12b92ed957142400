package main

import (
	"quire/engine"
	"quire/watchfanout"
)

// publisher hands the engine's events to the hub. The two packages do not know
// each other, so their event types are converted here; the bytes are shared.
type publisher member

// Publish implements engine.Publisher on the apply goroutine.
func (p *publisher) Publish(events []engine.Event, rev int64) {
	if p.hub == nil {
		return
	}
	p.events = appendEvents(p.events[:0], events)
	p.hub.Publish(p.events, rev)
	clear(p.events)
}

// WantsPrev implements engine.Publisher.
func (p *publisher) WantsPrev() bool { return p.hub != nil && p.hub.WantsPrev() }

func appendEvents(dst []watchfanout.Event, events []engine.Event) []watchfanout.Event {
	for i := range events {
		dst = append(dst, watchfanout.Event(events[i]))
	}
	return dst
}

// history lets the hub read past events.
type history struct{ e *engine.Engine }

func (h history) Bounds() (compactRev, rev int64) { return h.e.Bounds() }

func (h history) Events(dst []watchfanout.Event, from int64, maxBytes int, wantPrev bool) ([]watchfanout.Event, int64, error) {
	evs, next, err := h.e.Events(nil, from, maxBytes, wantPrev)
	if err == engine.ErrCompacted {
		err = watchfanout.ErrCompacted
	}
	return appendEvents(dst, evs), next, err
}
