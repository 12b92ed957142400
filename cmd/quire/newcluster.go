package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/rpc/membership"
)

// newCluster is the cluster of which a restored or imported store becomes a
// member, with the flags and the words of etcdutl.
type newCluster struct {
	name, cluster, token, peerURLs string
}

func (n *newCluster) register(f *flag.FlagSet) {
	f.StringVar(&n.name, "name", defaultName, "human-readable name of the member")
	f.StringVar(&n.cluster, "initial-cluster", defaultName+"="+defaultPeerURL, "members of the cluster, as NAME=URL,…")
	f.StringVar(&n.token, "initial-cluster-token", defaultToken, "token of the cluster")
	f.StringVar(&n.peerURLs, "initial-advertise-peer-urls", defaultPeerURL, "URLs of the member for its peers")
}

// asked tells whether one of the flags was given.
func (n *newCluster) asked(f *flag.FlagSet) bool {
	given := false
	f.Visit(func(fl *flag.Flag) {
		given = given || slices.Contains([]string{"name", "initial-cluster", "initial-cluster-token", "initial-advertise-peer-urls"}, fl.Name)
	})
	return given
}

// identity is who a store belongs to.
type identity struct {
	member, cluster uint64
	members         []*pb.Member // of a new cluster
}

// foundersOf gives the members of a new cluster their IDs.
func foundersOf(cluster map[string]urlList, self, token string) (id identity) {
	var ids []uint64
	for name, urls := range cluster {
		m := &pb.Member{ID: membership.ID(urls.strings(), token, time.Time{}), Name: name, PeerURLs: urls.strings()}
		ids = append(ids, m.ID)
		id.members = append(id.members, m)
		if name == self {
			id.member = m.ID
		}
	}
	id.cluster = membership.ClusterID(ids)
	return id
}

func (n *newCluster) identity() (id identity, err error) {
	peers, err := parseURLs(strings.Split(n.peerURLs, ","))
	if err != nil {
		return id, err
	}
	cluster, err := parseCluster(n.cluster)
	if err != nil {
		return id, err
	}
	c := &Config{Name: n.name, InitialCluster: n.cluster}
	if err := c.checkInitialCluster(cluster); err != nil {
		return id, err
	}
	if mine := cluster[n.name]; !slices.Equal(mine.strings(), peers.strings()) {
		return id, fmt.Errorf("--initial-cluster has %s=%s but missing from --initial-advertise-peer-urls=%s", n.name, mine.String(), peers.String())
	}
	return foundersOf(cluster, n.name, n.token), nil
}

// checkEmpty refuses a data directory that has anything in it, and a log
// directory that exists: what is in it would be taken for the log of the new
// store.
func checkEmpty(dataDir, walDir string) error {
	entries, err := os.ReadDir(dataDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) > 0 {
		return fmt.Errorf("data-dir %q not empty or could not be read", dataDir)
	}
	if walDir == "" {
		return nil
	}
	if _, err := os.Stat(walDir); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("wal-dir %q exists", walDir)
	}
	return nil
}
