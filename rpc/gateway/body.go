package gateway

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// bodyWait is how long the body of a request that is not a stream may take. It
// holds one message of a few MiB; a client that needs longer only holds a
// connection and a goroutine.
const bodyWait = time.Minute

var errBodyTooLarge = errors.New("http: request body too large")

// boundedBody reads a body of messages and fails when one of them is too large.
type boundedBody struct {
	r     io.Reader
	limit int64 // of one message; 0: none
	read  int64 // of this message
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.limit > 0 && b.read < b.limit {
		p = p[:min(int64(len(p)), b.limit-b.read)]
	}
	n, err := b.r.Read(p)
	if b.read += int64(n); b.limit > 0 && n > 0 && b.read >= b.limit {
		return n, errBodyTooLarge
	}
	return n, err
}

// next begins another message. What the decoder has read ahead of it is not
// counted, which is at most what one message may have.
func (b *boundedBody) next() { b.read = 0 }

// drain reads what stands behind the message.
func (b *boundedBody) drain() error {
	_, err := io.Copy(io.Discard, b)
	return err
}

// hurry gives the body until bodyWait to arrive; the returned function ends
// that. A writer that knows no deadlines (websockets) goes without.
func hurry(w http.ResponseWriter) (done func()) {
	rc := http.NewResponseController(w)
	if rc.SetReadDeadline(time.Now().Add(bodyWait)) != nil {
		return func() {}
	}
	return func() { _ = rc.SetReadDeadline(time.Time{}) }
}
