package gateway

import (
	"errors"
	"io"
	"time"
)

// bodyWait is the default of Options.BodyWait. A body is one message of a few MiB;
// a client that needs longer only holds a connection and a goroutine.
const bodyWait = time.Minute

var errBodyTooLarge = errors.New("http: request body too large")

// boundedBody reads a body of messages and fails when one of them is too large.
type boundedBody struct {
	r     io.Reader
	limit int64 // of one message; 0: none
	read  int64 // of this message
	ended bool  // r has been read to its end
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.limit > 0 {
		if b.read >= b.limit {
			return 0, errBodyTooLarge
		}
		p = p[:min(int64(len(p)), b.limit-b.read)]
	}
	n, err := b.r.Read(p)
	b.read += int64(n)
	b.ended = b.ended || err == io.EOF
	return n, err
}

// next begins another message. What the decoder has read ahead of it is not
// counted, which is at most what one message may have.
func (b *boundedBody) next() { b.read = 0 }

// skip reads on to the end of the body, as far as one more message goes.
func (b *boundedBody) skip() {
	b.next()
	_, _ = io.Copy(io.Discard, b)
}
