package abuse

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestIdleConnections: thousands that say nothing, a little, or hello and then nothing.
func TestIdleConnections(t *testing.T) {
	v := newVictim(t)
	const each = 700
	first := map[string]string{
		"silent":        "",
		"half a line":   "GE",
		"half a header": "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\n",
		"preface":       http2.ClientPreface,
	}
	var conns []net.Conn
	for name, text := range first {
		for range each {
			conn, err := net.DialTimeout("tcp", v.Endpoint, aliveLimit)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			conns = append(conns, conn)
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	v.alive()
	v.within(int64(len(conns)) * 48 * kib)
	for _, c := range conns {
		c.Close()
	}
	v.alive()
	v.nothingLeft()
}

// TestSlowBodies: requests whose body comes byte by byte, or never.
func TestSlowBodies(t *testing.T) {
	v := newVictim(t)
	var conns []net.Conn
	for i := range 500 {
		path := []string{"/v3/kv/put", "/v3/watch", "/v3/lease/keepalive", "/v3/lock/lock", "/health"}[i%5]
		conn := v.dial()
		conns = append(conns, conn)
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{\"key\":\"", path)
	}
	for range 20 {
		for _, c := range conns {
			_, _ = io.WriteString(c, "YWFh") // the server may have closed it
		}
	}
	v.alive()
	v.within(64 * mib)
	for _, c := range conns {
		c.Close()
	}
	v.nothingLeft()
}

// TestEndlessHeaders: a header without end is refused.
func TestEndlessHeaders(t *testing.T) {
	v := newVictim(t)
	line := "X-Long: " + strings.Repeat("x", 64*kib) + "\r\n"
	for range 20 {
		conn := v.dial()
		_, err := io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: x\r\n")
		for range 1000 {
			if err != nil {
				break
			}
			_, err = io.WriteString(conn, line)
		}
		if err == nil {
			t.Error("64 MB of header are taken")
		}
		conn.Close()
	}
	v.alive()
	v.within(generous)
	v.nothingLeft()
}

// TestRubbish: connections that talk nonsense.
func TestRubbish(t *testing.T) {
	v := newVictim(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 1500 {
		conn, err := net.DialTimeout("tcp", v.Endpoint, aliveLimit)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, rnd.IntN(2000))
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		if i%3 == 0 {
			_, _ = io.WriteString(conn, http2.ClientPreface)
		}
		_, _ = conn.Write(b)
		if i%2 == 0 {
			_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, _ = io.Copy(io.Discard, conn)
		}
		conn.Close()
	}
	v.alive()
	v.within(64 * mib)
	v.nothingLeft()
}

// TestPipelinedRequests: many requests in one write, whose answers nobody reads.
func TestPipelinedRequests(t *testing.T) {
	v := newVictim(t)
	batch := strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 500)
	for range 50 {
		conn := v.dial()
		_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		for range 20 {
			if _, err := io.WriteString(conn, batch); err != nil {
				break
			}
		}
	}
	v.alive()
	v.within(generous)
}

// TestHugeJSON: bodies beyond any request's size, deep ones, and bodies behind bodies.
func TestHugeJSON(t *testing.T) {
	v := newVictim(t)
	post := func(path, head, fill string, n int64, tail string) int {
		body := io.MultiReader(strings.NewReader(head), io.LimitReader(repeat(fill), n), strings.NewReader(tail))
		resp, err := http.Post("http://"+v.Endpoint+path, "application/json", body)
		if err != nil {
			return 0 // closed while it was being sent
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for name, status := range map[string]int{
		"value":     post("/v3/kv/put", `{"key":"YQ==","value":"`, "YWFh", 256*mib, `"}`),
		"space":     post("/v3/kv/put", ``, " ", 256*mib, `{}`),
		"behind":    post("/v3/kv/put", `{"key":"YQ=="}`, "!", 256*mib, ``),
		"arrays":    post("/v3/kv/put", `{"x":`, "[", 2*mib, ``),
		"objects":   post("/v3/kv/put", ``, `{"x":`, 2*mib, ``),
		"txns":      post("/v3/kv/txn", ``, `{"success":[{"request_txn":`, 5*mib, ``),
		"deep txns": post("/v3/kv/txn", strings.Repeat(`{"success":[{"request_txn":`, 9000), `{}`, 2, strings.Repeat(`}]}`, 9000)),
		"numbers":   post("/v3/kv/range", `{"limit":`, "9", mib, `}`),
		"stream":    post("/v3/watch", `{"create_request":{"key":"`, "YWFh", 256*mib, `"}}`),
	} {
		// Upstream reads what stands behind a message to its end, however long that is.
		if status == http.StatusOK && name != "stream" && (v.quire || name != "behind") || status >= 502 {
			t.Errorf("%s: status %d", name, status)
		}
	}
	v.alive()
	v.within(generous)
	v.nothingLeft()
}

// repeat is a text without end.
func repeat(text string) io.Reader { return &repeater{text: text} }

type repeater struct {
	text string
	at   int
}

func (r *repeater) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.text[r.at]
		r.at = (r.at + 1) % len(r.text)
	}
	return len(p), nil
}
