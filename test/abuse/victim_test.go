package abuse

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"quire/test/harness"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// generous is the bound where many megabytes go through the server: with its collector behind on a busy machine, garbage
// of a second or two is in it. What an attack costs that has no bound at all is gigabytes.
const generous = 256 * mib

// aliveLimit is how long the server may take for an ordinary request while it is mistreated: a busy machine's patience.
const aliveLimit = 20 * time.Second

// victim is the server under test, with an ordinary client.
type victim struct {
	*harness.Server
	*testing.T
	client *clientv3.Client
	quire  bool

	base, baseGoroutines int64
}

func newVictim(t *testing.T, flags ...string) *victim {
	t.Helper()
	v := &victim{T: t, Server: harness.Start(t, flags...), quire: harness.IsQuire(t)}
	v.client = v.Client(t)
	v.alive()
	v.base, v.baseGoroutines = v.resident(), v.goroutines()
	return v
}

// alive makes ordinary requests.
func (v *victim) alive() {
	v.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), aliveLimit)
	defer cancel()
	if _, err := v.client.Put(ctx, "alive", "yes"); err != nil {
		v.Fatalf("the server does not serve: %v", err)
	}
	if resp, err := v.client.Get(ctx, "alive"); err != nil || resp.Count != 1 {
		v.Fatalf("the server does not serve: %v %v", resp, err)
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.Endpoint+"/health", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		v.Fatalf("the server does not serve: %v", err)
	}
	resp.Body.Close()
}

// resident is the memory of the process in bytes.
func (v *victim) resident() int64 {
	v.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", v.Pid()))
	if err != nil {
		v.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		v.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// goroutines is what the server says of itself.
func (v *victim) goroutines() int64 {
	v.Helper()
	resp, err := http.Get("http://" + v.Endpoint + "/metrics")
	if err != nil {
		v.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			var n int64
			if _, err := fmt.Sscan(text, &n); err != nil {
				v.Fatal(err)
			}
			return n
		}
	}
	v.Fatal("no go_goroutines")
	return 0
}

// within asserts that the process has not grown by more than so much.
func (v *victim) within(bytes int64) {
	v.Helper()
	grown := v.resident() - v.base
	v.Logf("grown by %d KiB", grown/kib)
	if v.quire && grown > bytes {
		v.Errorf("grown by %d KiB, more than %d", grown/kib, bytes/kib)
	}
}

// nothingLeft waits until the goroutines that clients caused are gone.
func (v *victim) nothingLeft() {
	v.Helper()
	http.DefaultClient.CloseIdleConnections()
	const slack = 24 // connections of the test itself, and some that come and go
	var n int64
	for range 400 {
		if n = v.goroutines(); n <= v.baseGoroutines+slack {
			return
		}
		http.DefaultClient.CloseIdleConnections()
		time.Sleep(50 * time.Millisecond)
	}
	if v.quire {
		v.Errorf("%d goroutines are left, %d before", n, v.baseGoroutines)
	}
}

// dial opens a connection to the client port; it is closed at the end of the test.
func (v *victim) dial() net.Conn {
	v.Helper()
	conn, err := net.DialTimeout("tcp", v.Endpoint, aliveLimit)
	if err != nil {
		v.Fatal(err)
	}
	v.Cleanup(func() { conn.Close() })
	return conn
}
