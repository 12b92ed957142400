package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"quire/test/harness"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	watch := func(lines int, body string) request {
		return request{path: "/v3/watch", body: body, lines: lines}
	}
	put := func(key, value string) request {
		return request{path: "/v3/kv/put", body: fmt.Sprintf(`{"key":%q,"value":%q}`, key, value)}
	}
	p.same(t,
		put("YQ==", "MQ=="), put("YQ==", "Mg=="), put("Yg==", "Mw=="),
		request{path: "/v3/kv/deleterange", body: `{"key":"YQ=="}`},
		watch(1, `{"create_request":{"key":"YQ=="}}`),
		watch(2, `{"create_request":{"key":"YQ==","range_end":"Yw==","start_revision":"2"}}`),
		watch(2, `{"create_request":{"key":"YQ==","start_revision":3,"prev_kv":true,"filters":["NOPUT"]}}`),
		watch(2, `{"create_request":{"key":"YQ==","start_revision":3,"filters":[0]}}`),
		watch(2, `{"create_request":{"key":"YQ==","watch_id":"7"}}{"create_request":{"key":"YQ==","watch_id":7}}`),
		watch(2, `{"create_request":{"key":"YQ=="}} {"cancel_request":{"watch_id":"0"}}`),
		request{path: "/v3/watch", body: "{\"create_request\":{\"key\":\"YQ==\"}}\n{\"progress_request\":{}}\n", lines: 2, anyOrder: true},
		request{path: "/v3/kv/compaction", body: `{"revision":"4","physical":true}`},
		watch(2, `{"create_request":{"key":"YQ==","start_revision":"2"}}`),
	)
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.same(t,
		request{path: "/v3/lease/grant", body: `{"TTL":"100","ID":"77"}`},
		request{path: "/v3/lease/keepalive", body: `{"ID":"77"}`},
		request{path: "/v3/lease/keepalive", body: `{"ID":"78"}`},
		request{path: "/v3/lease/keepalive", body: `{"ID":"77"}{"ID":"78"}`},
		request{path: "/v3/lease/keepalive", body: `{"ID":"77"}{"ID":`},
		request{path: "/v3/lease/keepalive", body: `{"ID":"x"}`},
	)
}

// TestWatchSeesWhatComes: a watch that was opened before the change.
func TestWatchSeesWhatComes(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	var got [2]string
	for i, s := range []*harness.Server{p.quire, p.upstream} {
		lines := openStream(t, s, "/v3/watch", `{"create_request":{"key":"YQ=="}}`)
		got[i] = <-lines
		for _, value := range []string{"MQ==", "Mg=="} {
			send(t, s, request{path: "/v3/kv/put", body: fmt.Sprintf(`{"key":"YQ==","value":%q}`, value)})
			got[i] += <-lines
		}
		send(t, s, request{path: "/v3/kv/deleterange", body: `{"key":"YQ=="}`})
		got[i] += <-lines
	}
	if got[0] != got[1] {
		t.Errorf("got\n%swant\n%s", got[0], got[1])
	}
}

// openStream posts a request and gives out the lines of the answer as they come.
func openStream(t *testing.T, s *harness.Server, path, body string) <-chan string {
	t.Helper()
	pr, pw := io.Pipe()
	go func() { _, _ = io.WriteString(pw, body); pw.Close() }()
	return openStreamBody(t, s, path, pr)
}

func openStreamBody(t *testing.T, s *harness.Server, path string, body io.Reader) <-chan string {
	t.Helper()
	req, err := http.NewRequestWithContext(harness.Context(t), http.MethodPost, "http://"+s.Endpoint+path, body)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		for r := bufio.NewReader(resp.Body); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			lines <- normalise(line)
		}
	}()
	return lines
}

// TestWatchWhileTheBodyIsOpen: a client may keep its request open and send more. (Upstream answers an HTTP/1.1 request
// only when its body has come to an end.)
func TestWatchWhileTheBodyIsOpen(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream does not answer before the body's end")
	}
	s := harness.Start(t)
	pr, pw := io.Pipe()
	defer pw.Close()
	lines := openStreamBody(t, s, "/v3/watch", pr)
	for id := range 3 {
		fmt.Fprintf(pw, `{"create_request":{"key":"YQ==","watch_id":"%d"}}`, id+1)
		var chunk struct {
			Result struct {
				WatchID string `json:"watch_id"`
				Created bool
			}
		}
		if err := json.Unmarshal([]byte(<-lines), &chunk); err != nil {
			t.Fatal(err)
		}
		if chunk.Result.WatchID != fmt.Sprint(id+1) || !chunk.Result.Created {
			t.Errorf("answer %+v", chunk)
		}
	}
}

// TestWaitForLock: the second lock comes when the first is given back, and a caller who goes away leaves the line.
func TestWaitForLock(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	for name, s := range map[string]*harness.Server{"quire": p.quire, "upstream": p.upstream} {
		for id := 1; id <= 3; id++ {
			send(t, s, request{path: "/v3/lease/grant", body: fmt.Sprintf(`{"TTL":"100","ID":"%d"}`, id)})
		}
		lock := func(id int) (<-chan answer, func()) {
			done, stop := make(chan answer, 1), make(chan struct{})
			ctx, cancel := withStop(t, stop)
			go func() {
				defer cancel()
				a, err := trySend(ctx, s, request{path: "/v3/lock/lock", body: fmt.Sprintf(`{"name":"bA==","lease":"%d"}`, id)})
				if err == nil {
					done <- a
				}
			}()
			return done, func() { close(stop) }
		}
		keys := func(want int) {
			t.Helper()
			var resp struct{ Count string }
			for range 200 {
				a := send(t, s, request{path: "/v3/kv/range", body: `{"key":"bC8=","range_end":"bDA="}`})
				resp.Count = "0"
				if err := json.Unmarshal([]byte(a.body), &resp); err != nil {
					t.Fatal(err)
				}
				if resp.Count == fmt.Sprint(want) {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Fatalf("%s: %s keys in the line, want %d", name, resp.Count, want)
		}
		first, _ := lock(1)
		<-first
		_, goAway := lock(2)
		keys(2)
		third, _ := lock(3)
		keys(3)
		goAway()
		keys(2)
		send(t, s, request{path: "/v3/lock/unlock", body: `{"key":"bC8x"}`})
		select {
		case a := <-third:
			if want := `{"header":{"cluster_id":0,"member_id":0,"revision":"6","raft_term":0},"key":"bC8z"}`; a.body != want {
				t.Errorf("%s: %s, want %s", name, a.body, want)
			}
		case <-time.After(answerLimit):
			t.Errorf("%s: the lock does not come", name)
		}
	}
}
