package metrics

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"quire/test/harness"
)

// three runs a binary as a cluster of three.
func three(t *testing.T, binary string) (members []*harness.Server) {
	t.Helper()
	var peers, list []string
	for i := range 3 {
		peers = append(peers, "http://"+harness.FreePort(t))
		list = append(list, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i, peer := range peers {
		endpoint := harness.FreePort(t)
		s := harness.Launch(t, harness.Config{Binary: binary, BareArgs: true, Flags: []string{
			"--name", fmt.Sprint("m", i), "--data-dir", "data", "--initial-cluster", strings.Join(list, ","),
			"--listen-client-urls", "http://" + endpoint, "--advertise-client-urls", "http://" + endpoint,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		}})
		s.Endpoint = endpoint
		members = append(members, s)
	}
	for _, s := range members {
		if !s.Log.Wait("ready to serve client requests", time.Minute) {
			t.Fatal("not ready")
		}
	}
	return members
}

// inCluster is the pages of all members together, after requests to each of them.
func inCluster(t *testing.T, binary string) page {
	t.Helper()
	all := page{}
	members := three(t, binary)
	for i, s := range members {
		c := s.Client(t)
		for range 20 {
			if _, err := c.Put(harness.Context(t), fmt.Sprint("k", i), "v"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Get(harness.Context(t), "k0"); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(time.Second) // some heartbeats
	for _, s := range members {
		for name, f := range read(t, s) {
			if all[name] == nil {
				all[name] = f
				continue
			}
			maps.Copy(all[name].labels, f.labels)
			for series, v := range f.values {
				all[name].values[series] += v
			}
		}
	}
	return all
}

// TestClusterFamilies: what members of a cluster show in addition is here too, and moves.
func TestClusterFamilies(t *testing.T) {
	t.Parallel()
	got, want := inCluster(t, harness.Binary(t)), inCluster(t, harness.Upstream(t))
	for _, name := range slices.Sorted(maps.Keys(want)) {
		f, g := want[name], got[name]
		if isLeftOut(name) {
			continue
		}
		if g == nil {
			t.Errorf("%s (%s) is missing", name, f.kind)
			continue
		}
		for labels := range f.labels {
			if g.kind != f.kind || !g.labels[labels] {
				t.Errorf("%s is a %s with the labels %v, upstream's is a %s with %q", name, g.kind, slices.Collect(maps.Keys(g.labels)), f.kind, labels)
			}
		}
		if !strings.HasPrefix(name, "etcd_network_") {
			continue
		}
		for series, w := range f.values {
			if strings.Contains(series, `="0"`) {
				continue // upstream's count of messages without a sender; here each has one
			}
			if w != 0 && g.values[series] == 0 && !strings.Contains(name, "fail") && !strings.Contains(name, "disconnected") {
				t.Errorf("%s is %v, upstream's is %v (there: %v)", series, g.values[series], w, g.values)
			}
		}
	}
}
