package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/cmd/quire/discovery"
)

// origin is who a member without data is, and whether its cluster is new.
type origin struct {
	identity
	// remotes are the members of an existing cluster, which the leader will name
	// again in its snapshot.
	remotes []*pb.Member
}

const (
	// bootstrapWait is how long a founder asks the others whether it was a
	// member already; joinWait is how long each may take to tell who they are.
	bootstrapWait = time.Second
	joinWait      = 10 * time.Second
	resolveWait   = 30 * time.Second
)

// bootstrap decides who this member is. Once data exists it is never asked again.
func (c *Config) bootstrap(ctx context.Context, log *zap.Logger, remote *remotePeers) (origin, error) {
	cluster, token, err := c.namedMembers(ctx, log)
	if err != nil {
		return origin{}, err
	}
	if err := c.checkInitialCluster(cluster); err != nil {
		return origin{}, err
	}
	if c.ClusterState == clusterStateExisting {
		return c.join(ctx, log, remote, cluster)
	}
	return c.found(ctx, log, remote, cluster, token)
}

// namedMembers returns the members that the flags or a discovery name, and the
// token of a new cluster.
func (c *Config) namedMembers(ctx context.Context, log *zap.Logger) (cluster map[string]urlList, token string, err error) {
	list := c.InitialCluster
	switch {
	case len(c.Discovery.Endpoints) > 0:
		return c.discover(ctx, log)
	case c.DiscoverySRV.Domain != "":
		if list, err = c.DiscoverySRV.Lookup(ctx, c.Name, c.AdvertisePeerURLs, log); err != nil {
			return nil, "", err
		}
	}
	cluster, err = parseCluster(list)
	return cluster, c.ClusterToken, err
}

// discover registers this member at the discovery service, under the ID that it
// would have alone, and waits for the others.
func (c *Config) discover(ctx context.Context, log *zap.Logger) (cluster map[string]urlList, token string, err error) {
	log.Info("Bootstrapping cluster using v3 discovery.")
	token = c.Discovery.Token
	self := foundersOf(map[string]urlList{c.Name: c.AdvertisePeerURLs}, c.Name, token)
	list, err := discovery.Join(ctx, c.Discovery, self.member, named(c.Name, c.AdvertisePeerURLs.strings()), log)
	if err != nil {
		log.Warn("failed to bootstrap; discovery token was already used", zap.String("discovery-token", token),
			zap.Strings("discovery-endpoints", c.Discovery.Endpoints), zap.Error(err))
		log.Warn("do not reuse discovery token; generate a new one to bootstrap a cluster")
		return nil, "", fmt.Errorf("discovery failed: %w", err)
	}
	cluster, err = parseCluster(list)
	return cluster, token, err
}

// checkInitialCluster refuses a list without this member or with a URL twice.
func (c *Config) checkInitialCluster(cluster map[string]urlList) error {
	if len(cluster[c.Name]) == 0 {
		return fmt.Errorf("couldn't find local name %q in the initial cluster configuration", c.Name)
	}
	seen := map[string]bool{}
	for _, urls := range cluster {
		for _, u := range urls.strings() {
			if seen[u] {
				return fmt.Errorf("initial cluster %s has duplicate url", c.InitialCluster)
			}
			seen[u] = true
		}
	}
	return nil
}

// found begins a new cluster with the members of the list, unless the others
// have known this member already: then its data is lost, and starting again
// under the same identity would break what it promised them.
func (c *Config) found(ctx context.Context, log *zap.Logger, remote *remotePeers, cluster map[string]urlList, token string) (origin, error) {
	if err := c.advertiseMatches(ctx, cluster[c.Name]); err != nil {
		return origin{}, err
	}
	o := origin{identity: foundersOf(cluster, c.Name, token)}
	ctx, cancel := context.WithTimeout(ctx, bootstrapWait)
	defer cancel()
	if known, err := remote.members(ctx, othersURLs(cluster, c.Name)); err == nil {
		for _, m := range known.list {
			if m.ID == o.member && len(m.ClientURLs) > 0 {
				return origin{}, fmt.Errorf("member %x has already been bootstrapped", o.member)
			}
		}
	}
	log.Info("starting local member", zap.String("local-member-id", hex(o.member)), zap.String("cluster-id", hex(o.cluster)))
	return o, nil
}

// join finds out who this member is in a cluster that was told of it.
func (c *Config) join(ctx context.Context, log *zap.Logger, remote *remotePeers, cluster map[string]urlList) (origin, error) {
	urls := othersURLs(cluster, c.Name)
	ask, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	known, err := remote.members(ask, urls)
	if err != nil {
		log.Warn("failed to get cluster response", zap.Strings("addresses", urls), zap.Error(err))
		return origin{}, fmt.Errorf("cannot fetch cluster info from peer urls: %w", err)
	}
	names, err := matchMembers(ctx, cluster, known.list)
	if err != nil {
		return origin{}, fmt.Errorf("error validating peerURLs %s: %w", known, err)
	}
	if !known.quire {
		return origin{}, fmt.Errorf("the cluster at %s is one of etcd's own servers; a quire member cannot join it", strings.Join(urls, ","))
	}
	o := origin{identity: identity{member: names[c.Name], cluster: known.cluster}, remotes: known.list}
	if err := remote.checkVersions(ask, urls); err != nil {
		return origin{}, fmt.Errorf("incompatible with current running cluster: %w", err)
	}
	learners := 0
	for _, m := range known.list {
		if m.IsLearner {
			learners++
		}
	}
	if learners > c.MaxLearners {
		return origin{}, errors.New("etcdserver: too many learner members in cluster")
	}
	log.Info("joining an existing cluster", zap.String("local-member-id", hex(o.member)), zap.String("cluster-id", hex(o.cluster)))
	return o, nil
}

// othersURLs are the peer URLs of everybody else, in order.
func othersURLs(cluster map[string]urlList, self string) (urls []string) {
	for name, us := range cluster {
		if name != self {
			urls = append(urls, us.strings()...)
		}
	}
	slices.Sort(urls)
	return urls
}

// matchMembers pairs the names of the list with the members of the cluster, by
// their URLs, and returns the IDs by name.
func matchMembers(ctx context.Context, cluster map[string]urlList, members []*pb.Member) (map[string]uint64, error) {
	if len(cluster) != len(members) {
		return nil, errors.New("member count is unequal")
	}
	ids := map[string]uint64{}
	for _, m := range members {
		found, last := false, error(nil)
		for name, urls := range cluster {
			same, err := sameURLs(ctx, m.PeerURLs, urls.strings())
			if same {
				ids[name], found = m.ID, true
				break
			}
			last = cmp.Or(last, err)
		}
		if !found {
			return nil, fmt.Errorf("PeerURLs: no match found for existing member (%x, %v), last resolver error (%v)", m.ID, m.PeerURLs, last)
		}
	}
	return ids, nil
}

// advertiseMatches compares this member's entry of the list with its
// --initial-advertise-peer-urls.
func (c *Config) advertiseMatches(ctx context.Context, listed urlList) error {
	same, err := sameURLs(ctx, c.AdvertisePeerURLs.strings(), listed.strings())
	if same {
		return nil
	}
	missing := func(from, in []string) (out []string) {
		for _, u := range from {
			if !slices.Contains(in, u) {
				out = append(out, u)
			}
		}
		return out
	}
	own := c.AdvertisePeerURLs.strings()
	if m := missing(listed.strings(), own); len(m) > 0 {
		return fmt.Errorf("--initial-cluster has %s but missing from --initial-advertise-peer-urls=%s (%v)",
			named(c.Name, m), strings.Join(own, ","), err)
	}
	if m := missing(own, listed.strings()); len(m) > 0 {
		return fmt.Errorf("--initial-advertise-peer-urls has %s but missing from --initial-cluster=%s", strings.Join(m, ","), named(c.Name, own))
	}
	return fmt.Errorf("failed to resolve %s to match --initial-cluster=%s (%v)", strings.Join(own, ","), named(c.Name, own), err)
}

func named(name string, urls []string) string {
	out := make([]string, len(urls))
	for i, u := range urls {
		out[i] = name + "=" + u
	}
	return strings.Join(out, ",")
}

// sameURLs compares two lists of URLs, host names by what they resolve to.
func sameURLs(ctx context.Context, a, b []string) (bool, error) {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	if slices.Equal(a, b) {
		return true, nil
	}
	if len(a) != len(b) {
		return false, fmt.Errorf("len(%v) != len(%v)", a, b)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWait)
	defer cancel()
	for _, list := range [][]string{a, b} {
		for i := range list {
			var err error
			if list[i], err = resolveURL(ctx, list[i]); err != nil {
				return false, err
			}
		}
		slices.Sort(list)
	}
	if slices.Equal(a, b) {
		return true, nil
	}
	return false, fmt.Errorf("resolved urls: %v and %v do not match", a, b)
}

// resolveURL replaces a host name by its first address.
func resolveURL(ctx context.Context, raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || isUnix(*u) || net.ParseIP(host) != nil {
		return raw, nil
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "", err
	}
	slices.Sort(addrs)
	u.Host = net.JoinHostPort(addrs[0], port)
	return u.String(), nil
}

func hex(id uint64) string { return fmt.Sprintf("%x", id) }
