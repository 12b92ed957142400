package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"quire/test/harness"
)

var clientv3Prefix = clientv3.WithPrefix()

// TestRestart kills the server: users, roles, permissions and the switch are there again, tokens are not.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := start(t)
	before, err := s.auth.AuthStatus(harness.Context(t), &pb.AuthStatusRequest{})
	check(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var made []string
	root := s.as(t, "root")
	ctx, stop := context.WithCancel(root)
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("u%d-%d", w, i)
				if _, err := s.auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: name, Password: "pw"}); err != nil {
					return
				}
				mu.Lock()
				made = append(made, name)
				if len(made) == 60 {
					s.Kill()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	stop()
	s.Restart(t)
	s = connect(t, s.Server)
	get := &pb.RangeRequest{Key: []byte("a/1")}
	_, err = s.kv.Range(withToken(harness.Context(t), "junk"), get)
	badToken(t, "after a restart", err)
	_, err = s.kv.Range(harness.Context(t), get)
	nobody(t, "after a restart", err)
	if isQuire(t) { // upstream may hand out again what its log holds
		_, err = s.auth.UserList(root, &pb.AuthUserListRequest{})
		badToken(t, "token of before", err)
	}
	root = s.as(t, "root")
	users, err := s.auth.UserList(root, &pb.AuthUserListRequest{})
	check(t, err)
	known := map[string]bool{}
	for _, u := range users.Users {
		known[u] = true
	}
	for _, u := range made {
		if !known[u] {
			t.Errorf("user %s was added and is gone", u)
		}
	}
	after, err := s.auth.AuthStatus(root, &pb.AuthStatusRequest{})
	check(t, err)
	if !after.Enabled || after.AuthRevision < before.AuthRevision+uint64(len(made)) {
		t.Errorf("%v, before %v and %d users", after, before, len(made))
	}
	_, err = s.kv.Put(s.as(t, "ranged"), put("a/1"))
	check(t, err)
	_, err = s.kv.Put(s.as(t, "ranged"), put("b"))
	denied(t, "after a restart", err)
	s.as(t, made[0])
}

// A client that logs in by itself goes on over a restart.
func TestClientLogsInAgain(t *testing.T) {
	t.Parallel()
	s := start(t)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, Username: "ranged", Password: "pw"})
	check(t, err)
	defer c.Close()
	_, err = c.Put(harness.Context(t), "a/1", "1")
	check(t, err)
	s.Kill()
	s.Restart(t)
	_, err = c.Put(harness.Context(t), "a/1", "2")
	check(t, err)
}

// TestTokenTTL lets a simple token run out, and keeps another alive by use.
func TestTokenTTL(t *testing.T) {
	t.Parallel()
	s := start(t, "--auth-token-ttl=3")
	idle, used := s.as(t, "ranged"), s.as(t, "ranged")
	get := &pb.RangeRequest{Key: []byte("a/1")}
	for range 25 { // 5 seconds
		_, err := s.kv.Range(used, get)
		check(t, err)
		sleep(200)
	}
	_, err := s.kv.Range(idle, get)
	badToken(t, "a token that was not used", err)
}

// TestTokenThroughTheGateway uses a token the way shell scripts do.
func TestTokenThroughTheGateway(t *testing.T) {
	t.Parallel()
	s := start(t)
	post := func(path, token, body string) (int, string) {
		req, err := http.NewRequest(http.MethodPost, "http://"+s.Endpoint+path, strings.NewReader(body))
		check(t, err)
		if token != "" {
			req.Header.Set("Authorization", token)
		}
		answer, err := http.DefaultClient.Do(req)
		check(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		check(t, err)
		return answer.StatusCode, string(text)
	}
	code, text := post("/v3/auth/authenticate", "", `{"name":"ranged","password":"pw"}`)
	var login struct{ Token string }
	if err := json.Unmarshal([]byte(text), &login); err != nil || code != http.StatusOK || login.Token == "" {
		t.Fatalf("%d %s", code, text)
	}
	const mine, another = `{"key":"YS8x","value":"dg=="}`, `{"key":"Yg==","value":"dg=="}` // a/1, b
	for _, c := range []struct {
		token, body, want string
		code              int
	}{
		{login.Token, mine, `"revision"`, http.StatusOK},
		{"Bearer " + login.Token, mine, `"revision"`, http.StatusOK},
		{login.Token, another, "etcdserver: permission denied", http.StatusForbidden},
		{"junk", mine, "etcdserver: invalid auth token", http.StatusUnauthorized},
		{"", mine, "etcdserver: user name is empty", http.StatusBadRequest},
	} {
		if code, text := post("/v3/kv/put", c.token, c.body); code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("token %q, %s: %d %s", c.token, c.body, code, text)
		}
	}
}

// TestBadTokenOptions starts no server with tokens that it cannot make.
func TestBadTokenOptions(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"unheard-of", "jwt", "jwt,sign-method=RS256", "jwt,sign-method=HS256,priv-key=/nonexistent", "simple,x"} {
		s := harness.Launch(t, harness.Config{Flags: []string{"--auth-token=" + spec}})
		if code := s.Exit(t); code != 1 {
			t.Errorf("%s: exit code %d", spec, code)
		}
		if !strings.Contains(s.Log.String(), "auth:") {
			t.Errorf("%s: no reason in the log", spec)
		}
	}
}
