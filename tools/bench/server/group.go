package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Group is a cluster of servers of one side; of one, if nothing else is asked.
type Group struct {
	Servers []*Server
	cfg     Config
	added   int
}

// NewGroup makes the directories and chooses the ports of n members of a new
// cluster.
func NewGroup(cfg Config, n int) (*Group, error) {
	g := &Group{cfg: cfg}
	for range n {
		if _, err := g.join(); err != nil {
			return nil, errors.Join(err, g.Remove())
		}
	}
	for _, s := range g.Servers {
		s.cluster = g.list()
	}
	return g, nil
}

// join makes one more server of the group.
func (g *Group) join() (*Server, error) {
	s, err := New(g.cfg)
	if err != nil {
		return nil, err
	}
	g.added++
	s.name = fmt.Sprint("bench", g.added)
	g.Servers = append(g.Servers, s)
	return s, nil
}

func (g *Group) list() string {
	var all []string
	for _, s := range g.Servers {
		all = append(all, s.name+"="+s.PeerURL())
	}
	return strings.Join(all, ",")
}

// Start starts all and returns when each has answered a linearizable read.
func (g *Group) Start(ctx context.Context) error {
	for _, s := range g.Servers {
		if err := s.launch(); err != nil {
			return err
		}
	}
	for _, s := range g.Servers {
		if err := s.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Replace puts an empty server in the place of the i-th, which does not run. Before
// it is started the cluster has to be told: the old member is gone, and a new one
// has the PeerURL of the result.
func (g *Group) Replace(i int) (*Server, error) {
	if err := g.Servers[i].Remove(); err != nil {
		return nil, err
	}
	fresh, err := g.join()
	if err != nil {
		return nil, err
	}
	last := len(g.Servers) - 1
	g.Servers[i], g.Servers = fresh, g.Servers[:last]
	fresh.cluster, fresh.state = g.list(), "existing"
	return fresh, nil
}

// Addrs are the client addresses.
func (g *Group) Addrs() (all []string) {
	for _, s := range g.Servers {
		all = append(all, s.Addr())
	}
	return all
}

// PIDs are the processes.
func (g *Group) PIDs() (all []int) {
	for _, s := range g.Servers {
		all = append(all, s.PID())
	}
	return all
}

// Stop ends all processes with SIGTERM.
func (g *Group) Stop() (err error) {
	for _, s := range g.Servers {
		err = errors.Join(err, s.Stop())
	}
	return err
}

// Remove ends the processes and deletes the directories.
func (g *Group) Remove() (err error) {
	for _, s := range g.Servers {
		err = errors.Join(err, s.Remove())
	}
	return err
}

// LogTail is the end of a server's log, for messages.
func (s *Server) LogTail() string {
	text, _ := os.ReadFile(filepath.Clean(s.logFile()))
	return string(text[max(0, len(text)-logTail):])
}
