package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Security is how the servers of a cluster and their clients talk.
type Security int

const (
	Plain   Security = iota
	Mutual           // TLS with certificates of one authority on both sides, between members and for clients
	AutoTLS          // TLS with certificates that every server makes for itself
)

// ClusterConfig says how to start a cluster.
type ClusterConfig struct {
	Size     int
	Flags    []string
	Security Security
	Hosts    bool // each server on a Host of its own; otherwise behind proxies, whose cuts need Plain
}

// Cluster is several servers that form one. A test can cut them off from each other.
type Cluster struct {
	Servers []*Server

	cfg    ClusterConfig
	ca     *CA
	net    *Net // nil with hosts
	hub    *hub // nil without
	places map[*Server]*Place
}

// Place is where a server is, or will be.
type Place struct {
	c      *Cluster
	client string   // address for clients
	peer   string   // where it listens for the other members
	serial *big.Int // of its certificate
	link   *Link    // through which these come; nil on a host
	host   *Host
}

// URL is where the other members reach the server.
func (p *Place) URL() string {
	if p.link != nil {
		return p.c.scheme() + p.link.address()
	}
	return p.c.scheme() + p.peer
}

func (c *Cluster) scheme() string {
	if c.cfg.Security == Plain {
		return "http://"
	}
	return "https://"
}

// StartCluster runs n servers as one new cluster and waits until all are ready. They are killed at the end of the test.
func StartCluster(t testing.TB, n int, flags ...string) *Cluster {
	t.Helper()
	return StartClusterConfig(t, ClusterConfig{Size: n, Flags: flags})
}

// StartClusterConfig runs a new cluster and waits until all its servers are ready. They are killed at the end of the
// test. Where there can be no hosts, a test that wants them is skipped.
func StartClusterConfig(t testing.TB, cfg ClusterConfig) *Cluster {
	t.Helper()
	c := &Cluster{cfg: cfg, places: map[*Server]*Place{}}
	if cfg.Security == Mutual {
		c.ca = NewCA(t, "cluster")
		c.ca.Revoke(t, revocations)
	}
	if cfg.Hosts {
		c.hub = newHub(t)
	} else {
		c.net = newNet()
	}
	var names, list []string
	var places []*Place
	for i := range cfg.Size {
		names = append(names, fmt.Sprint("m", i+1))
		places = append(places, c.NewPlace(t))
		list = append(list, names[i]+"="+places[i].URL())
	}
	for i := range cfg.Size {
		c.add(t, names[i], places[i], strings.Join(list, ","), "new")
	}
	for _, s := range c.Servers {
		s.waitReady(t)
	}
	return c
}

// NewPlace is for a server that there is not yet.
func (c *Cluster) NewPlace(t testing.TB) *Place {
	t.Helper()
	if c.hub != nil {
		h := c.hub.host(t)
		return &Place{c: c, client: h.ip + ":2379", peer: h.ip + ":2380", host: h}
	}
	p := &Place{c: c, client: FreePort(t), peer: FreePort(t)}
	p.link = c.net.link(t, p.peer)
	return p
}

// add launches one more server.
func (c *Cluster) add(t testing.TB, name string, p *Place, list, state string) *Server {
	t.Helper()
	client := c.scheme() + p.client
	flags := []string{
		"--name", name, "--data-dir", "data", "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", c.scheme() + p.peer, "--initial-advertise-peer-urls", p.URL(),
		"--initial-cluster", list, "--initial-cluster-state", state,
	}
	secure, secrets := c.security(t, name, p)
	cfg := Config{BareArgs: true, Flags: slices.Concat(flags, secure, c.cfg.Flags)}
	if p.host != nil {
		cfg.Binary = "ip"
		cfg.Flags = slices.Concat([]string{"netns", "exec", p.host.name, Binary(t)}, cfg.Flags)
	}
	s := Launch(t, cfg)
	s.Endpoint, s.DataDir, s.tls = p.client, s.WorkDir+"/data", secrets
	c.places[s], s.name = p, name
	c.Servers = append(c.Servers, s)
	return s
}

// revocations is the name of the authority's list, which peers look at.
const revocations = "peers.crl"

// security gives flags to a server, and the clients of it their side.
func (c *Cluster) security(t testing.TB, name string, p *Place) (flags []string, client *tls.Config) {
	t.Helper()
	switch c.cfg.Security {
	case Mutual:
		own := c.issue(t, name, p)
		for _, prefix := range []string{"--", "--peer-"} {
			flags = append(flags, prefix+"cert-file", own.CertFile, prefix+"key-file", own.KeyFile,
				prefix+"trusted-ca-file", c.ca.File(), prefix+"client-cert-auth")
		}
		flags = append(flags, "--peer-crl-file", filepath.Join(c.ca.Dir, revocations))
		user := c.ca.Issue(t, name+"-client", Subject{CN: "client"})
		return flags, &tls.Config{RootCAs: c.ca.Pool(), Certificates: []tls.Certificate{user.TLS}}
	case AutoTLS:
		return []string{"--auto-tls", "--peer-auto-tls"}, &tls.Config{InsecureSkipVerify: true}
	}
	return nil, nil
}

func (c *Cluster) issue(t testing.TB, name string, p *Place) Pair {
	t.Helper()
	host, _, _ := net.SplitHostPort(p.client)
	pair := c.ca.Issue(t, name, Subject{CN: name, IPs: []string{host}})
	p.serial = pair.Cert.SerialNumber
	return pair
}

// Revoke puts the certificate of a server on the authority's list.
func (c *Cluster) Revoke(t testing.TB, s *Server) {
	t.Helper()
	c.ca.Revoke(t, revocations, Pair{Cert: &x509.Certificate{SerialNumber: c.places[s].serial}})
}

// Reissue replaces the certificate of a server in its files.
func (c *Cluster) Reissue(t testing.TB, s *Server) {
	t.Helper()
	c.issue(t, s.name, c.places[s])
}

// Endpoints are the client addresses of all servers.
func (c *Cluster) Endpoints() (all []string) {
	for _, s := range c.Servers {
		all = append(all, s.Endpoint)
	}
	return all
}

// Client returns a new client of these servers, or of all if none is named; it is closed at the end of the test.
func (c *Cluster) Client(t testing.TB, of ...*Server) *clientv3.Client {
	t.Helper()
	endpoints := c.Endpoints()
	if len(of) > 0 {
		endpoints = nil
		for _, s := range of {
			endpoints = append(endpoints, s.Endpoint)
		}
	}
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(), TLS: c.Servers[0].tls,
		DialKeepAliveTime: time.Second, DialKeepAliveTimeout: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	return cli
}

// statusLimit is how long a server may take to tell who leads.
const statusLimit = time.Second

// Leader waits until one server of these (all, if none is named) leads and the others of them follow it.
func (c *Cluster) Leader(t testing.TB, of ...*Server) *Server {
	t.Helper()
	if len(of) == 0 {
		of = c.Servers
	}
	for deadline := time.Now().Add(readyLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if s := c.agreed(t, of); s != nil {
			return s
		}
	}
	t.Fatal("no leader")
	return nil
}

func (c *Cluster) agreed(t testing.TB, of []*Server) (leader *Server) {
	t.Helper()
	lead := uint64(0)
	for _, s := range of {
		st, err := s.status(t)
		if err != nil || st.Leader == 0 || lead != 0 && lead != st.Leader {
			return nil
		}
		lead = st.Leader
		if st.Header.MemberId == lead {
			leader = s
		}
	}
	return leader
}

func (s *Server) status(t testing.TB) (*clientv3.StatusResponse, error) {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, Logger: zap.NewNop(), TLS: s.tls})
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(t.Context(), statusLimit)
	defer cancel()
	return cli.Status(ctx, s.Endpoint)
}

// MemberID is the server's identity, asked of itself once.
func (s *Server) MemberID(t testing.TB) uint64 {
	t.Helper()
	for deadline := time.Now().Add(readyLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if id := s.id.Load(); id != 0 {
			return id
		}
		if st, err := s.status(t); err == nil {
			s.id.Store(st.Header.MemberId)
		}
	}
	t.Fatalf("%s does not say who it is", s.Endpoint)
	return 0
}

// Others are the servers without these.
func (c *Cluster) Others(not ...*Server) (others []*Server) {
	for _, s := range c.Servers {
		if !slices.Contains(not, s) {
			others = append(others, s)
		}
	}
	return others
}

// PeerURL is where the others reach a server.
func (c *Cluster) PeerURL(s *Server) string { return c.places[s].URL() }

// Add launches one more server, which a client has made known as a member before: name and the list of all members are
// what etcdctl prints then. It does not wait for it.
func (c *Cluster) Add(t testing.TB, name string, p *Place) *Server {
	t.Helper()
	return c.add(t, name, p, c.list(name, p), "existing")
}

// list is --initial-cluster for a new server.
func (c *Cluster) list(name string, p *Place) string {
	list := []string{name + "=" + p.URL()}
	for _, s := range c.Servers {
		if c.places[s] != p {
			list = append(list, s.name+"="+c.PeerURL(s))
		}
	}
	return strings.Join(list, ",")
}

// Anew runs a server that was wiped, at its place, as a member that a client has added meanwhile.
func (c *Cluster) Anew(t testing.TB, s *Server) {
	t.Helper()
	s.Restart(t, "--initial-cluster-state", "existing", "--initial-cluster", c.list(s.name, c.places[s]))
}

// Forget takes a server out of the list, for one that was removed.
func (c *Cluster) Forget(s *Server) {
	c.Servers = c.Others(s)
	delete(c.places, s)
}

// Ready waits until a server is.
func (s *Server) Ready(t testing.TB) {
	t.Helper()
	s.waitReady(t)
}

// Wipe deletes the data of a server that does not run.
func (s *Server) Wipe(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(s.DataDir); err != nil {
		t.Fatal(err)
	}
	s.id.Store(0)
}

// Relaunch runs a server that has ended with further flags and does not wait for anything.
func (s *Server) Relaunch(t testing.TB, moreFlags ...string) {
	t.Helper()
	s.keeper.Lock()
	defer s.keeper.Unlock()
	<-s.exited
	s.args = append(s.args[:len(s.args):len(s.args)], moreFlags...)
	s.launch(t)
}

// Relink opens a second way to a server's peer port and returns its URL. There are none on hosts.
func (c *Cluster) Relink(t testing.TB, s *Server) (url string) {
	t.Helper()
	p := *c.places[s]
	p.link = c.net.link(t, p.peer)
	p.link.old = c.places[s].link
	c.places[s] = &p
	return p.URL()
}

// CloseLink closes the way that Relink has replaced.
func (c *Cluster) CloseLink(s *Server) { c.places[s].link.old.lis.Close() }

// Cut lets nothing pass any more that one server sends to another as a member.
func (c *Cluster) Cut(t testing.TB, from, to *Server) {
	t.Helper()
	if c.hub == nil {
		if c.cfg.Security != Plain {
			t.Fatal("a proxy does not know whose encrypted connections they are")
		}
		c.net.cut(from.MemberID(t), to.MemberID(t))
	} else if err := c.places[from].host.cut(c.places[to].host); err != nil {
		t.Fatal(err)
	}
}

// Isolate cuts servers off from the others, both ways.
func (c *Cluster) Isolate(t testing.TB, these ...*Server) {
	t.Helper()
	for _, a := range these {
		for _, b := range c.Others(these...) {
			c.Cut(t, a, b)
			c.Cut(t, b, a)
		}
	}
}

// Heal ends all cuts.
func (c *Cluster) Heal(t testing.TB) {
	t.Helper()
	if c.hub == nil {
		c.net.heal()
		return
	}
	for _, h := range c.hub.hosts {
		if err := h.heal(); err != nil {
			t.Fatal(err)
		}
	}
}

// Break disturbs all connections between members for a moment.
func (c *Cluster) Break(t testing.TB) {
	t.Helper()
	if c.hub == nil {
		c.net.drop(func(*passage) bool { return true })
	} else if err := c.hub.blink(); err != nil {
		t.Fatal(err)
	}
}

// PowerOff ends a server as a power failure of its host does, which nobody else is told of; without hosts it is a Kill.
// PowerOn runs it again.
func (c *Cluster) PowerOff(t testing.TB, s *Server) {
	t.Helper()
	if h := c.places[s].host; h != nil {
		if err := h.plug(false); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill()
}

// PowerOn ends a PowerOff and waits until the server is ready.
func (c *Cluster) PowerOn(t testing.TB, s *Server) {
	t.Helper()
	if h := c.places[s].host; h != nil {
		if err := h.plug(true); err != nil {
			t.Fatal(err)
		}
	}
	s.Restart(t)
}
