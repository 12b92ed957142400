package rpc

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// sendTimes is how long watch responses take from the hub to grpc-go, by kind:
// what etcd measures in the loop that sends them.
type sendTimes struct {
	events, perEvent  histogram
	control, progress histogram // created and canceled; progress notifications
}

// burst is the messages that a stream sends between two waits. The clock is read
// twice a burst and not twice a message: each message counts with the mean.
type burst struct {
	began             time.Time
	messages          int // with events
	events            int
	control, progress int
}

// maxBurst bounds a burst on a stream that never waits, so that it is seen.
const maxBurst = 64

func (b *burst) size() int { return b.messages + b.control + b.progress }

// add notes a message with so many events that is about to be sent.
func (b *burst) add(msg []byte, events int, now func() time.Time) {
	if b.size() == 0 {
		b.began = now()
	}
	switch {
	case events > 0:
		b.messages++
		b.events += events
	case isProgress(msg):
		b.progress++
	default:
		b.control++
	}
}

// settle ends the burst.
func (b *burst) settle(t *sendTimes, now func() time.Time) {
	n := b.size()
	if n == 0 {
		return
	}
	mean := now().Sub(b.began) / time.Duration(n)
	t.events.observeN(mean, b.messages)
	t.control.observeN(mean, b.control)
	t.progress.observeN(mean, b.progress)
	if b.messages > 0 {
		t.perEvent.observeN(mean*time.Duration(b.messages)/time.Duration(b.events), b.messages)
	}
	*b = burst{}
}

// isProgress tells a progress notification from the other responses without
// events: it is neither created nor canceled.
func isProgress(msg []byte) bool {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 || num == 3 || num == 4 {
			return false
		}
		m := protowire.ConsumeFieldValue(num, typ, msg[n:])
		if m < 0 {
			return false
		}
		msg = msg[n+m:]
	}
	return true
}
