package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"quire/test/harness"
)

// socket is a browser's end of a websocket.
type socket struct{ *websocket.Conn }

func dialSocket(t *testing.T, s *harness.Server, path string, header http.Header) socket {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+s.Endpoint+path, header)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(answerLimit))
	return socket{conn}
}

func (s socket) say(t *testing.T, text string) {
	t.Helper()
	if err := s.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func (s socket) hear(t *testing.T) string {
	t.Helper()
	_, msg, err := s.ReadMessage()
	if err != nil {
		return fmt.Sprint("error: ", err)
	}
	return normalise(string(msg))
}

func TestWebsocket(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	var got [2][]string
	for i, s := range []*harness.Server{p.quire, p.upstream} {
		note := func(text string) { got[i] = append(got[i], text) }
		w := dialSocket(t, s, "/v3/watch", nil)
		w.say(t, `{"create_request":{"key":"YQ=="}}`)
		note(w.hear(t))
		send(t, s, request{path: "/v3/kv/put", body: `{"key":"YQ==","value":"MQ=="}`})
		note(w.hear(t))
		w.say(t, `{"create_request":{"key":"YQ==","start_revision":"2"}}`)
		note(w.hear(t))
		note(w.hear(t))
		w.say(t, `{"cancel_request":{"watch_id":"1"}}`)
		note(w.hear(t))
		k := dialSocket(t, s, "/v3/lease/keepalive?method=GET", nil)
		k.say(t, `{"ID":"5"}`)
		note(k.hear(t))
		k.say(t, `no json`)
		note(k.hear(t))
		n := dialSocket(t, s, "/v3/nothing", nil)
		note(n.hear(t))
		note(n.hear(t))
	}
	for i := range got[1] {
		if got[0][i] != got[1][i] {
			t.Errorf("answer %d\n got %s\nwant %s", i, got[0][i], got[1][i])
		}
	}
}

// TestWebsocketProtocol: a token among the protocols is answered by the name of the protocol.
func TestWebsocketProtocol(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	for _, s := range []*harness.Server{p.quire, p.upstream} {
		w := dialSocket(t, s, "/v3/watch", http.Header{"Sec-WebSocket-Protocol": {"Bearer, token"}})
		if got := w.Subprotocol(); got != "Bearer" {
			t.Errorf("protocol %q", got)
		}
	}
}

// TestWebsocketUnary: a call that is no stream works too. (Upstream waits for the end of what the client sends, which
// ends the call.)
func TestWebsocketUnary(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream does not answer")
	}
	s := harness.Start(t)
	w := dialSocket(t, s, "/v3/kv/range", nil)
	w.say(t, `{"key":"YQ=="}`)
	if got, want := w.hear(t), `{"header":{"cluster_id":0,"member_id":0,"revision":"1","raft_term":0}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, _, err := w.ReadMessage(); err == nil {
		t.Error("the connection goes on behind the answer")
	}
}

// TestWebsocketMessageTooLarge: quire's own bound.
func TestWebsocketMessageTooLarge(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream has no bound")
	}
	s := harness.Start(t)
	w := dialSocket(t, s, "/v3/watch", nil)
	_ = w.WriteMessage(websocket.TextMessage, []byte(strings.Repeat(" ", 9<<20))) // may break off
	_, _, err := w.ReadMessage()
	if err == nil {
		t.Fatal("an answer")
	}
	var closed *websocket.CloseError
	if errors.As(err, &closed) && closed.Code != websocket.CloseMessageTooBig {
		t.Errorf("closed with %v", closed)
	}
	send(t, s, request{path: "/health"})
}
