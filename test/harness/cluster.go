package harness

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Cluster is several servers that form one. Every server's peer URL leads through a proxy of its own, so that a test
// can cut members off from each other.
type Cluster struct {
	Servers []*Server
	Net     *Net

	flags []string
	peers map[*Server]string // peer URL as the others know it
	links map[*Server]*Link
}

// StartCluster runs n servers as one new cluster and waits until all are ready. They are killed at the end of the test.
func StartCluster(t testing.TB, n int, flags ...string) *Cluster {
	t.Helper()
	c := &Cluster{flags: flags, peers: map[*Server]string{}, links: map[*Server]*Link{}, Net: newNet(t)}
	var names, list []string
	var links []*Link
	for i := range n {
		names = append(names, fmt.Sprint("m", i+1))
		links = append(links, c.Net.link(t, FreePort(t)))
		list = append(list, names[i]+"="+links[i].URL())
	}
	for i := range n {
		c.add(t, names[i], links[i], strings.Join(list, ","), "new")
	}
	for _, s := range c.Servers {
		s.waitReady(t)
	}
	return c
}

// add launches one more server.
func (c *Cluster) add(t testing.TB, name string, l *Link, list, state string) *Server {
	t.Helper()
	client := "http://" + FreePort(t)
	s := Launch(t, Config{BareArgs: true, Flags: append([]string{
		"--name", name, "--data-dir", "data", "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", "http://" + l.to, "--initial-advertise-peer-urls", l.URL(),
		"--initial-cluster", list, "--initial-cluster-state", state,
	}, c.flags...)})
	s.Endpoint, s.DataDir = strings.TrimPrefix(client, "http://"), s.WorkDir+"/data"
	c.peers[s], c.links[s], s.name = l.URL(), l, name
	c.Servers = append(c.Servers, s)
	return s
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
		Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
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
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(t.Context(), statusLimit)
	defer cancel()
	return cli.Status(ctx, s.Endpoint)
}

// MemberID is the server's identity, asked of itself.
func (s *Server) MemberID(t testing.TB) uint64 {
	t.Helper()
	for deadline := time.Now().Add(readyLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if st, err := s.status(t); err == nil {
			return st.Header.MemberId
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
func (c *Cluster) PeerURL(s *Server) string { return c.peers[s] }

// Add launches one more server, which a client has made known as a member before: name and the list of all members are
// what etcdctl prints then. It does not wait for it.
func (c *Cluster) Add(t testing.TB, name string, l *Link) *Server {
	t.Helper()
	list := []string{name + "=" + l.URL()}
	for _, s := range c.Servers {
		list = append(list, s.name+"="+c.peers[s])
	}
	return c.add(t, name, l, strings.Join(list, ","), "existing")
}

// NewLink is a way to a member that there is not yet.
func (c *Cluster) NewLink(t testing.TB) *Link {
	t.Helper()
	return c.Net.link(t, FreePort(t))
}

// Forget takes a server out of the list, for one that was removed.
func (c *Cluster) Forget(s *Server) {
	c.Servers = c.Others(s)
	delete(c.peers, s)
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

// Relink opens a second way to a server's peer port.
func (c *Cluster) Relink(t testing.TB, s *Server) *Link {
	t.Helper()
	to := ""
	for i, arg := range s.args {
		if arg == "--listen-peer-urls" {
			to = strings.TrimPrefix(s.args[i+1], "http://")
		}
	}
	l := c.Net.link(t, to)
	l.old = c.links[s]
	c.links[s], c.peers[s] = l, l.URL()
	return l
}

// CloseLink closes the way that Relink has replaced.
func (c *Cluster) CloseLink(s *Server) { c.links[s].old.lis.Close() }
