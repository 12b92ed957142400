package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"quire/api/mvccpb"

	pb "quire/api/etcdserverpb"
)

// fakeKV is a discovery service in memory.
type fakeKV struct {
	mu     sync.Mutex
	keys   map[string]*mvccpb.KeyValue
	rev    int64
	faults int // requests that fail first
}

func newFakeKV() *fakeKV { return &fakeKV{keys: map[string]*mvccpb.KeyValue{}} }

func (f *fakeKV) fail() error {
	if f.faults > 0 {
		f.faults--
		return errors.New("unreachable")
	}
	return nil
}

func (f *fakeKV) get(_ context.Context, key string, withPrefix bool) (*pb.RangeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail(); err != nil {
		return nil, err
	}
	resp := &pb.RangeResponse{}
	for k, kv := range f.keys {
		if k == key || withPrefix && strings.HasPrefix(k, key) {
			resp.Kvs = append(resp.Kvs, kv)
		}
	}
	return resp, nil
}

func (f *fakeKV) put(_ context.Context, key, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail(); err != nil {
		return err
	}
	f.rev++
	created := f.rev
	if old := f.keys[key]; old != nil {
		created = old.CreateRevision
	}
	f.keys[key] = &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: created}
	return nil
}

func (f *fakeKV) close() {}

func (f *fakeKV) member(id int) *registry {
	return &registry{kv: f, token: "tok", self: fmt.Sprint("/_etcd/registry/tok/members/", id), log: zap.NewNop()}
}

const sizeKey = "/_etcd/registry/tok/_config/size"

func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeKV()
		_ = f.put(t.Context(), sizeKey, "3")
		f.faults = 3
		results := make(chan string, 3)
		for i := range 3 {
			go func() {
				time.Sleep(time.Duration(3-i) * time.Second)
				list, err := f.member(i).join(t.Context(), fmt.Sprintf("m%d=http://h%d:1,m%d=http://h%d:2", i, i, i, i))
				if err != nil {
					t.Error(err)
				}
				results <- list
			}()
		}
		first := <-results
		for range 2 {
			if list := <-results; list != first {
				t.Errorf("%q and %q", list, first)
			}
		}
		if n := strings.Count(first, "="); n != 6 {
			t.Errorf("%d URLs in %q", n, first)
		}
		// Who has been there may come again, with the same result; another one may not.
		if list, err := f.member(1).join(t.Context(), "m1=http://h1:1,m1=http://h1:2"); err != nil || list != first {
			t.Errorf("again: %q, %v", list, err)
		}
		if _, err := f.member(9).join(t.Context(), "m9=http://h9:1"); !errors.Is(err, ErrFull) {
			t.Errorf("a fourth: %v", err)
		}
	})
}

// TestJoinRace: of more members than there may be, those that came first count.
func TestJoinRace(t *testing.T) {
	f := newFakeKV()
	ctx := t.Context()
	_ = f.put(ctx, sizeKey, "2")
	for i := range 3 {
		_ = f.put(ctx, f.member(i).self, fmt.Sprintf("m%d=http://h:%d", i, i))
	}
	if list, err := f.member(1).join(ctx, "m1=http://h:1"); err != nil || list != "m0=http://h:0,m1=http://h:1" {
		t.Errorf("%q, %v", list, err)
	}
	if _, err := f.member(2).join(ctx, "m2=http://h:2"); !errors.Is(err, ErrFull) {
		t.Errorf("the third: %v", err)
	}
}

func TestJoinRefusals(t *testing.T) {
	for _, tc := range []struct {
		size, other string
		want        error
	}{
		{"", "", ErrSizeNotFound},
		{"many", "", ErrBadSize},
		{"0", "", ErrBadSize},
		{"2", "m9=no URL", ErrInvalidURL},
	} {
		f := newFakeKV()
		if tc.size != "" {
			_ = f.put(t.Context(), sizeKey, tc.size)
		}
		if tc.other != "" {
			_ = f.put(t.Context(), f.member(9).self, tc.other)
		}
		if _, err := f.member(1).join(t.Context(), "m1=http://h:1"); !errors.Is(err, tc.want) {
			t.Errorf("size %q: %v, want %v", tc.size, err, tc.want)
		}
	}
}

// fakeDNS resolves what it was given.
type fakeDNS struct {
	srv   map[string][]*net.SRV
	hosts map[string]string
}

func (d fakeDNS) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if r := d.srv["_"+service+"._"+proto+"."+name]; r != nil {
		return "", r, nil
	}
	return "", nil, errors.New("no such record")
}

func (d fakeDNS) LookupHost(_ context.Context, host string) ([]string, error) {
	if a := d.hosts[host]; a != "" {
		return []string{a}, nil
	}
	return nil, errors.New("no such host")
}

func TestSRV(t *testing.T) {
	hosts := map[string]string{"a.x.": "10.0.0.1", "b.x.": "10.0.0.2", "c.x.": "10.0.0.3", "a.x": "10.0.0.1"}
	plain := []*net.SRV{{Target: "a.x.", Port: 2380}, {Target: "b.x.", Port: 2380}, {Target: "gone.x.", Port: 2380}, {Target: "c.x.", Port: 2380}}
	for _, tc := range []struct {
		name, suffix, own string
		srv               map[string][]*net.SRV
		want, fault       string
	}{
		{"plain", "", "http://10.0.0.2:2380", map[string][]*net.SRV{"_etcd-server._tcp.x": plain},
			"0=http://a.x:2380,me=http://b.x:2380,1=http://c.x:2380", ""},
		{"TLS, with a name", "one", "https://a.x:2380", map[string][]*net.SRV{"_etcd-server-ssl-one._tcp.x": plain},
			"me=https://a.x:2380,0=https://b.x:2380,1=https://c.x:2380", ""},
		{"not in it", "", "http://10.9.9.9:2380", map[string][]*net.SRV{"_etcd-server._tcp.x": plain}, "", `cannot find local etcd member "me" in SRV records`},
		{"other scheme", "", "https://10.0.0.1:2380", map[string][]*net.SRV{"_etcd-server._tcp.x": plain[:1]}, "", "scheme mismatch"},
		{"nothing", "", "http://10.0.0.1:2380", nil, "", "error querying DNS SRV records for _etcd-server-ssl no such record"},
	} {
		u, _ := url.Parse(tc.own)
		got, err := SRV{Domain: "x", Suffix: tc.suffix}.lookup(t.Context(), fakeDNS{tc.srv, hosts}, "me", []url.URL{*u}, zap.NewNop())
		if got != tc.want || (err == nil) != (tc.fault == "") || err != nil && !strings.Contains(err.Error(), tc.fault) {
			t.Errorf("%s: %q, %v", tc.name, got, err)
		}
	}
}

func TestTransports(t *testing.T) {
	for _, tc := range []struct {
		endpoint string
		insecure bool
		addr     string
		secure   bool
	}{
		{"http://h:1", false, "h:1", false}, {"https://h:1", true, "h:1", true}, {"h:1", true, "h:1", false}, {"h:1", false, "h:1", true},
	} {
		creds, addr, err := (&Config{InsecureTransport: tc.insecure}).transport(tc.endpoint)
		if err != nil || addr != tc.addr || (creds.Info().SecurityProtocol == "tls") != tc.secure {
			t.Errorf("%s: %s, %v, %v", tc.endpoint, addr, creds.Info(), err)
		}
	}
	bad := Config{Endpoints: []string{" ", "h:1"}, Key: "k"}
	if faults := bad.Validate(); len(faults) != 3 {
		t.Errorf("%v", faults)
	}
	if slices.ContainsFunc((&Config{Token: "t", Endpoints: []string{"h:1"}}).Validate(), func(error) bool { return true }) {
		t.Error("a good configuration is refused")
	}
}
