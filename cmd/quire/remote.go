package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	pb "quire/api/etcdserverpb"
)

// remotePeers asks other members over HTTP on their peer URLs, before this one
// is a member itself.
type remotePeers struct {
	tls func() *tls.Config // nil: https cannot be asked
}

// maxAnswer bounds what is read of an answer; thousands of members would fit.
const maxAnswer = 4 << 20

// clusterHeader is etcd's; protocolHeader tells a quire member from etcd's own.
const (
	clusterHeader  = "X-Etcd-Cluster-Id"
	protocolHeader = "X-Quire-Peer-Protocol"
)

// remoteCluster is what a member tells of its cluster.
type remoteCluster struct {
	cluster uint64
	list    []*pb.Member
	quire   bool
}

// String lists the members as etcd does in this error.
func (c *remoteCluster) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{ClusterID:%x Members:[", c.cluster)
	for i, m := range c.list {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%x=%s", m.ID, strings.Join(m.PeerURLs, ","))
	}
	b.WriteString("]}")
	return b.String()
}

// peerMember is a member in the JSON of the peer port.
type peerMember struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// members asks all URLs at once; the first good answer counts.
func (r *remotePeers) members(ctx context.Context, urls []string) (*remoteCluster, error) {
	return first(ctx, urls, func(ctx context.Context, u string) (*remoteCluster, error) {
		body, header, err := r.get(ctx, u, "/members")
		if err != nil {
			return nil, err
		}
		var ms []peerMember
		if err := json.Unmarshal(body, &ms); err != nil {
			return nil, err
		}
		c := &remoteCluster{quire: header.Get(protocolHeader) != ""}
		if c.cluster, err = strconv.ParseUint(header.Get(clusterHeader), 16, 64); err != nil {
			return nil, err
		}
		for _, m := range ms {
			c.list = append(c.list, &pb.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner})
		}
		if len(c.list) == 0 {
			return nil, errors.New("failed to get raft cluster member(s) from the given URLs")
		}
		return c, nil
	})
}

// checkVersions refuses a cluster whose version this program does not speak.
func (r *remotePeers) checkVersions(ctx context.Context, urls []string) error {
	_, err := first(ctx, urls, func(ctx context.Context, u string) (struct{}, error) {
		body, _, err := r.get(ctx, u, "/version")
		if err != nil {
			return struct{}{}, err
		}
		var v struct {
			Cluster string `json:"etcdcluster"`
		}
		if err := json.Unmarshal(body, &v); err != nil {
			return struct{}{}, err
		}
		if !compatibleCluster(v.Cluster) {
			return struct{}{}, fmt.Errorf("cluster version of remote member is %s", v.Cluster)
		}
		return struct{}{}, nil
	})
	return err
}

// first asks all and returns the first answer that is none but an error only
// if all are.
func first[T any](ctx context.Context, urls []string, ask func(context.Context, string) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(urls))
	for _, u := range urls {
		go func() {
			v, err := ask(ctx, u)
			if err != nil {
				err = fmt.Errorf("%s: %w", u, err)
			}
			results <- result{v, err}
		}()
	}
	var errs []error
	for range urls {
		r := <-results
		if r.err == nil {
			return r.v, nil
		}
		errs = append(errs, r.err)
	}
	var none T
	return none, errors.Join(append([]error{errors.New("could not retrieve cluster information from the given URLs")}, errs...)...)
}

// get fetches one page of a member's peer port.
func (r *remotePeers) get(ctx context.Context, peerURL, path string) ([]byte, http.Header, error) {
	u, err := url.Parse(peerURL)
	if err != nil {
		return nil, nil, err
	}
	tr := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: joinWait}
	if r.tls != nil {
		tr.TLSClientConfig = r.tls().Clone() // the transport adds protocols
	}
	if isUnix(*u) {
		socket := u.Host + u.Path
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
		*u = url.URL{Scheme: map[bool]string{false: "http", true: "https"}[isSecure(*u)], Host: "unix"}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String()+path, nil)
	if err != nil {
		return nil, nil, err
	}
	client := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("status %s", resp.Status)
	}
	return body, resp.Header, nil
}

// compatibleCluster tells whether a cluster version is one that this program
// can serve: etcd's range is from 3.0 to its own.
func compatibleCluster(v string) bool {
	major, rest, _ := strings.Cut(v, ".")
	minor, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(minor)
	own, _ := strconv.Atoi(strings.Split(clusterVersion, ".")[1])
	return err == nil && major == "3" && n <= own
}
