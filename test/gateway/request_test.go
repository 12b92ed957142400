package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"quire/test/harness"
)

// request is one HTTP request. The zero method is POST with a body and GET without.
type request struct {
	method, path, body string
	header             map[string]string
	lines              int    // of a stream's answer to read; 0: all of it
	anyOrder           bool   // of those lines
	without            string // a line that upstream does not have
}

// answer is what of a response is compared.
type answer struct {
	status  int
	headers string
	body    string
}

func (a answer) String() string { return fmt.Sprintf("%d\n%s\n%s", a.status, a.headers, a.body) }

// answerLimit is how long a server may take for one answer.
const answerLimit = time.Minute

// comparedHeaders are those that clients look at.
var comparedHeaders = []string{"Content-Type", "Allow", "Grpc-Metadata-Content-Type", "X-Content-Type-Options", "Location", "Www-Authenticate"}

func send(t testing.TB, s *harness.Server, r request) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
	defer cancel()
	a, err := trySend(ctx, s, r)
	if err != nil {
		t.Fatalf("%s %s %s: %v", r.method, r.path, r.body, err)
	}
	return a
}

func trySend(ctx context.Context, s *harness.Server, r request) (answer, error) {
	if r.method == "" {
		r.method = http.MethodPost
		if r.body == "" {
			r.method = http.MethodGet
		}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "http://"+s.Endpoint+r.path, strings.NewReader(r.body))
	if err != nil {
		return answer{}, err
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := readAnswer(resp.Body, r.lines)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, body: normalise(body)}
	if r.anyOrder {
		lines := slices.Sorted(strings.Lines(a.body))
		a.body = strings.Join(slices.DeleteFunc(lines, func(l string) bool { return r.without != "" && l == r.without }), "")
	}
	for _, h := range comparedHeaders {
		if v := resp.Header.Values(h); len(v) > 0 {
			a.headers += fmt.Sprintf("%s: %s\n", h, strings.Join(v, ", "))
		}
	}
	if len(resp.TransferEncoding) > 0 && r.lines > 0 {
		a.headers += "Transfer-Encoding: " + strings.Join(resp.TransferEncoding, ",") + "\n"
	}
	return a, nil
}

// readAnswer reads lines lines, or everything.
func readAnswer(r io.Reader, lines int) (string, error) {
	if lines == 0 {
		all, err := io.ReadAll(r)
		return string(all), err
	}
	var text bytes.Buffer
	buf := make([]byte, 1)
	for lines > 0 {
		if _, err := io.ReadFull(r, buf); err != nil {
			return text.String(), fmt.Errorf("after %q: %w", text.String(), err)
		}
		text.Write(buf)
		if buf[0] == '\n' {
			lines--
		}
	}
	return text.String(), nil
}

// own are the numbers that are a server's own, or the clock's.
var own = regexp.MustCompile(`"(cluster_id|member_id|raft_term|raftTerm|raftIndex|raftAppliedIndex|leader|dbSize|dbSizeInUse|memberID|hash)":"?\d+"?`)

// chosen are the ids of leases that a server has made itself.
var chosen = regexp.MustCompile(`"\d{16,}"`)

// normalise takes out the space between the parts of JSON, and what is a server's own.
func normalise(body string) string {
	var out strings.Builder
	for line := range strings.Lines(body) {
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(line)); err != nil {
			out.WriteString(line) // no JSON
			continue
		}
		out.Write(compact.Bytes())
		if strings.HasSuffix(line, "\n") {
			out.WriteByte('\n')
		}
	}
	// protobuf's errors have a space or a non-breaking space, by build.
	body = strings.ReplaceAll(out.String(), "\u00a0", " ")
	return chosen.ReplaceAllString(own.ReplaceAllString(body, `"$1":0`), `"id"`)
}

// pair is quire and upstream, given the same requests.
type pair struct{ quire, upstream *harness.Server }

func startPair(t testing.TB, flags ...string) pair {
	t.Helper()
	p := pair{harness.Start(t, flags...), harness.StartUpstream(t, flags...)}
	p.settle(t)
	return p
}

// settle waits until upstream has raised its storage version, which it does some seconds after its start.
func (p pair) settle(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + p.upstream.Endpoint + "/version")
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if strings.Contains(string(body), `"storage":"3.7.0"`) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("upstream's storage version is not decided: %v", err)
		}
	}
}

// same sends requests to both and compares the answers.
func (p pair) same(t *testing.T, requests ...request) {
	t.Helper()
	for _, r := range requests {
		got, want := send(t, p.quire, r), send(t, p.upstream, r)
		if got != want {
			t.Errorf("%s %s %s\n--- got\n%s\n--- want\n%s", r.method, r.path, r.body, got, want)
		}
	}
}

// withStop is a context that ends with stop too.
func withStop(t testing.TB, stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(harness.Context(t))
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
