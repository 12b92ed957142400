package main

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/disk"
	"quire/engine"
)

// trio is a cluster of three processes, spoken to in JSON.
type trio struct {
	dir   string
	args  [3][]string
	addrs [3]string // of clients
	procs [3]*process
}

func startTrio(t *testing.T, flags ...string) *trio {
	t.Helper()
	c := &trio{dir: t.TempDir()}
	var peers []string
	ports := freePorts(t, 6)
	for i := range c.procs {
		c.addrs[i] = ports[i]
		peers = append(peers, fmt.Sprintf("m%d=http://%s", i, ports[3+i]))
	}
	for i := range c.procs {
		client, peer := "http://"+c.addrs[i], "http://"+ports[3+i]
		c.args[i] = append([]string{fmt.Sprint("--name=m", i), "--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=" + strings.Join(peers, ",")}, flags...)
		c.procs[i] = startQuire(t, c.dir, c.args[i]...)
	}
	for _, p := range c.procs {
		p.await(t, `"msg":"ready to serve client requests"`)
	}
	return c
}

func freePorts(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// post calls a method of a member and returns its answer, whatever it is.
func (c *trio) post(t *testing.T, i int, method, body string) string {
	t.Helper()
	resp, err := http.Post("http://"+c.addrs[i]+"/v3/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// watch opens one; the function returns what has come so far.
func (c *trio) watch(t *testing.T, i int) (lines func() string) {
	t.Helper()
	resp, err := http.Post("http://"+c.addrs[i]+"/v3/watch", "application/json", strings.NewReader(`{"create_request":{"key":"azE="}}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	var mu sync.Mutex
	var text strings.Builder
	go func() {
		for from := bufio.NewScanner(resp.Body); from.Scan(); {
			mu.Lock()
			text.WriteString(from.Text() + "\n")
			mu.Unlock()
		}
	}()
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
}

func (c *trio) put(t *testing.T, i int, key string) string {
	t.Helper()
	return c.post(t, i, "kv/put", fmt.Sprintf(`{"key":%q}`, base64.StdEncoding.EncodeToString([]byte(key))))
}

func (c *trio) probe(t *testing.T, i int, path string) int {
	t.Helper()
	resp, err := http.Get("http://" + c.addrs[i] + path)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// status tells who a member is, who leads, and up to where it has applied.
func (c *trio) status(t *testing.T, i int) (id, leader string, applied uint64) {
	t.Helper()
	var s struct {
		Header struct {
			ID string `json:"member_id"`
		} `json:"header"`
		Leader  string `json:"leader"`
		Applied string `json:"raftAppliedIndex"`
	}
	if err := json.Unmarshal([]byte(c.post(t, i, "maintenance/status", "{}")), &s); err != nil {
		t.Fatal(err)
	}
	applied, _ = strconv.ParseUint(s.Applied, 10, 64)
	return s.Header.ID, s.Leader, applied
}

func (c *trio) alarms(t *testing.T, i int) string {
	t.Helper()
	return c.post(t, i, "maintenance/alarm", `{"action":"GET"}`)
}

// leader returns the places of the leader and of a follower.
func (c *trio) leader(t *testing.T) (leader, follower int) {
	t.Helper()
	for i := range c.procs {
		if id, lead, _ := c.status(t, i); id == lead {
			return i, (i + 1) % 3
		}
	}
	t.Fatal("no leader")
	return 0, 0
}

// tamper stops a member and writes a key into its store that no other has; at is
// the entry after which it is different.
func (c *trio) tamper(t *testing.T, i int) (at uint64) {
	t.Helper()
	c.procs[i].stop(t, syscall.SIGTERM)
	dir, err := disk.OpenDir(filepath.Join(c.dir, fmt.Sprintf("m%d.etcd", i), storeDir), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	e, err := engine.Open(dir, engine.Options{QuotaBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	body, err := (&pb.PutRequest{Key: []byte("only here")}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	op := engine.AppendOp(nil, engine.OpPut, body)
	at = e.AppliedIndex()
	e.Apply(at, e.Term(), append(binary.AppendUvarint(nil, uint64(len(op))), op...), nil)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return at
}

func (c *trio) restart(t *testing.T, i int, flags ...string) {
	t.Helper()
	c.procs[i] = startQuire(t, c.dir, append(c.args[i], flags...)...)
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// TestDivergentMember: a member whose store has a key more than the others' is
// named, with the entries between which that happened, and serves nothing more.
// The alarm comes back until it is replaced.
func TestDivergentMember(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	c := startTrio(t)
	leader, odd := c.leader(t)
	for i := range 40 {
		c.put(t, leader, fmt.Sprint("k", i))
	}
	time.Sleep(2 * time.Second) // two rounds: all are verified
	at := c.tamper(t, odd)
	c.restart(t, odd)
	c.procs[odd].await(t, `"msg":"ready to serve client requests"`)
	oddID, _, _ := c.status(t, odd)
	old := c.watch(t, odd)
	eventually(t, "a watch", func() bool { return strings.Contains(old(), `"created":true`) })
	// Nobody writes, and it is found all the same.
	line := c.procs[leader].await(t, "a member is divergent")
	var said struct {
		Level, Member string
		Equal         uint64 `json:"last-equal-entry"`
		Different     uint64 `json:"first-different-entry"`
		MemberID      string `json:"member-id"`
	}
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		t.Fatal(err)
	}
	want, _ := strconv.ParseUint(oddID, 10, 64)
	if said.Level != "error" || said.MemberID != fmt.Sprintf("%x", want) || said.Equal == 0 || said.Equal > at || said.Different < at || said.Different > at+16 {
		t.Errorf("the store was changed after entry %d, the log says %s", at, line)
	}
	named := fmt.Sprintf(`"alarms":[{"memberID":"%s","alarm":"CORRUPT"}]`, oddID)
	eventually(t, named, func() bool { return strings.Contains(c.alarms(t, odd), named) })
	for what, lines := range map[string]func() string{"a watch of before": old, "a watch": c.watch(t, odd)} {
		eventually(t, what+" is canceled", func() bool {
			return strings.Contains(lines(), `"canceled":true`) && strings.Contains(lines(), "etcdserver: corrupt cluster")
		})
	}
	c.checkAlarmed(t, leader, odd)

	// Disarming and restarting mend nothing.
	c.post(t, leader, "maintenance/alarm", fmt.Sprintf(`{"action":"DEACTIVATE","memberID":%q,"alarm":"CORRUPT"}`, oddID))
	eventually(t, "the alarm again", func() bool { return strings.Contains(c.alarms(t, leader), named) })
	c.procs[odd].stop(t, syscall.SIGTERM)
	c.restart(t, odd)
	c.procs[odd].await(t, `"msg":"ready to serve client requests"`)
	c.checkAlarmed(t, leader, odd)

	// Without it, all is well.
	eventually(t, "removal", func() bool { // as soon as it has been connected for long enough
		return strings.Contains(c.post(t, leader, "cluster/member/remove", fmt.Sprintf(`{"ID":%q}`, oddID)), "members")
	})
	c.post(t, leader, "maintenance/alarm", fmt.Sprintf(`{"action":"DEACTIVATE","memberID":%q,"alarm":"CORRUPT"}`, oddID))
	for i := range 20 {
		if got := c.put(t, leader, fmt.Sprint("m", i)); strings.Contains(got, "error") {
			t.Fatal(got)
		}
	}
	time.Sleep(3 * time.Second)
	if got := c.alarms(t, leader); strings.Contains(got, "CORRUPT") {
		t.Errorf("after the replacement: %s\n%s", got, strings.Join(c.procs[leader].lines(), "\n"))
	}
}

// checkAlarmed: the divergent member refuses reads, all refuse writes, as in etcd;
// nobody is to be restarted for that.
func (c *trio) checkAlarmed(t *testing.T, leader, odd int) {
	t.Helper()
	const corrupt = "etcdserver: corrupt cluster"
	for i := range c.procs {
		if got := c.put(t, i, "k"); !strings.Contains(got, corrupt) {
			t.Errorf("a put at member %d: %s", i, got)
		}
		for _, how := range []string{"true", "false"} {
			got := c.post(t, i, "kv/range", `{"key":"azE=","serializable":`+how+`}`)
			if refused := strings.Contains(got, corrupt); refused != (i == odd) {
				t.Errorf("a read at member %d, serializable %s: %s", i, how, got)
			}
		}
		live, ready, health := c.probe(t, i, "/livez"), c.probe(t, i, "/readyz"), c.probe(t, i, "/health")
		if live != 200 || ready != 503 || health != 503 {
			t.Errorf("member %d: livez %d, readyz %d, health %d", i, live, ready, health)
		}
	}
}

// TestInitialCorruptCheck: a member that has other data than the others does not
// start with the gate open; one that has the same does.
func TestInitialCorruptCheck(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const gate = "--feature-gates=InitialCorruptCheck=true"
	c := startTrio(t)
	leader, odd := c.leader(t)
	for i := range 20 {
		c.put(t, leader, fmt.Sprint("k", i))
	}
	c.procs[odd].stop(t, syscall.SIGTERM)
	c.put(t, leader, "while it was away")
	c.restart(t, odd, gate)
	c.procs[odd].await(t, "initial corruption checking passed; no corruption")
	c.procs[odd].await(t, `"msg":"ready to serve client requests"`)
	oddID, _, _ := c.status(t, odd)
	c.tamper(t, odd)
	for i := range 3 { // else the others do not have its newest revision yet
		c.put(t, leader, fmt.Sprint("l", i))
	}
	c.restart(t, odd, gate)
	p := c.procs[odd]
	select {
	case <-p.end:
	case <-time.After(30 * time.Second):
		t.Fatal("it runs")
	}
	id, _ := strconv.ParseUint(oddID, 10, 64)
	log := strings.Join(p.lines(), "\n")
	for _, part := range []string{"found different hash values from remote peer", "checkInitialHashKV failed", fmt.Sprintf("%x found data inconsistency with peers", id)} {
		if !strings.Contains(log, part) {
			t.Errorf("the log does not say %q:\n%s", part, log)
		}
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(filepath.Join(c.dir, fmt.Sprintf("m%d.etcd", odd))); err != nil {
		t.Error(err)
	}
}
