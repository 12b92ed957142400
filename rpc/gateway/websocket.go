package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"
)

// Browsers cannot send a request body bit by bit, so the API is served over
// websockets too: each message in is a message of the request, each chunk of
// the answer a message out. etcd does this with a library (tmc/grpc-websocket-proxy) that
// reads messages of any size into memory; hence these few lines. What they take
// over: where the token comes from, that any origin may connect, that every
// request is a POST, and that the connection is closed when the call has ended.

var upgrader = websocket.Upgrader{
	ReadBufferSize: 1024, WriteBufferSize: 1024,
	CheckOrigin: func(*http.Request) bool { return true },
}

// tokenCookie may hold the token, for browsers cannot set headers here either.
const tokenCookie = "token"

func isWebsocket(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) }

func (g *Gateway) serveWebsocket(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, acceptedProtocol(r))
	if err != nil {
		g.opts.Logger.Debug("cannot make a websocket", zap.String("remote-addr", r.RemoteAddr), zap.Error(err))
		return // Upgrade has answered
	}
	conn.SetReadLimit(g.opts.MaxMessageBytes)
	ctx, cancel := context.WithCancel(r.Context())
	body, messages := io.Pipe()
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		defer cancel() // the client is gone, or talks what is no websocket
		pump(conn, messages)
	}()
	defer func() {
		_ = conn.Close()
		_ = body.Close()
		<-pumped
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL.String(), body)
	if err != nil {
		return
	}
	copyIdentity(req, r)
	out := &socketWriter{conn: conn, header: http.Header{}}
	g.mux.ServeHTTP(out, req)
	out.end()
}

// acceptedProtocol answers a client that has put its token among the protocols.
func acceptedProtocol(r *http.Request) http.Header {
	if strings.HasPrefix(r.Header.Get("Sec-Websocket-Protocol"), "Bearer") {
		return http.Header{"Sec-Websocket-Protocol": {"Bearer"}}
	}
	return nil
}

// copyIdentity takes over who asks: the token and where the request comes from.
func copyIdentity(to, from *http.Request) {
	if p := from.Header.Get("Sec-Websocket-Protocol"); p != "" {
		token := ""
		if _, after, ok := strings.Cut(p, "Bearer,"); ok { // some put a space behind the comma
			token = "Bearer " + strings.Trim(after, " ")
		}
		to.Header.Set("Authorization", token)
	}
	for _, name := range []string{"Origin", "Referer"} {
		if v := from.Header.Get(name); v != "" {
			to.Header.Set(name, v)
		}
	}
	if c, err := from.Cookie(tokenCookie); err == nil {
		to.Header.Set("Authorization", "Bearer "+c.Value)
	}
}

// pump writes what comes from conn into the request's body until one of them
// ends. A message is handed over before the next is read.
func pump(conn *websocket.Conn, body *io.PipeWriter) {
	defer body.Close()
	for {
		_, msg, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if _, err := body.Write(append(msg, '\n')); err != nil {
			return
		}
	}
}

// socketWriter is the response of a request that came by websocket. The status
// and the header have nowhere to go.
type socketWriter struct {
	conn   *websocket.Conn
	header http.Header
	line   []byte // not yet ended
}

// Header implements http.ResponseWriter.
func (s *socketWriter) Header() http.Header { return s.header }

// WriteHeader implements http.ResponseWriter.
func (s *socketWriter) WriteHeader(int) {}

// Flush implements http.Flusher: lines are sent as they end.
func (s *socketWriter) Flush() {}

// Write implements http.ResponseWriter. It blocks while the client does not read.
func (s *socketWriter) Write(p []byte) (int, error) {
	s.line = append(s.line, p...)
	for {
		line, rest, ended := bytes.Cut(s.line, []byte{'\n'})
		if !ended {
			return len(p), nil
		}
		if err := s.send(line); err != nil {
			return 0, err
		}
		s.line = append(s.line[:0], rest...)
	}
}

// end sends a last line that nothing ended.
func (s *socketWriter) end() { _ = s.send(s.line) }

func (s *socketWriter) send(line []byte) error {
	if len(line) == 0 {
		return nil
	}
	return s.conn.WriteMessage(websocket.TextMessage, line)
}
