package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"quire/test/harness"
)

// TestDiscovery: three members that know only a token find each other through an etcd cluster; a fourth is refused.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"quire", "etcd"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			start := harness.Start
			if kind == "etcd" {
				start = harness.StartUpstream
			}
			service, ctx := start(t), harness.Context(t)
			cli := service.Client(t)
			_, err := cli.Put(ctx, "/_etcd/registry/tok/_config/size", "3")
			check(t, err)
			_, err = cli.UserAdd(ctx, "root", "pass")
			check(t, err)
			_, err = cli.UserGrantRole(ctx, "root", "root")
			check(t, err)
			_, err = cli.AuthEnable(ctx)
			check(t, err)
			var all []*harness.Server
			for i := range 4 {
				client, peer := "http://"+harness.FreePort(t), "http://"+harness.FreePort(t)
				s := harness.Launch(t, harness.Config{BareArgs: true, Flags: []string{
					"--name", fmt.Sprint("d", i), "--data-dir", "data", "--listen-client-urls", client, "--advertise-client-urls", client,
					"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
					"--discovery-token", "tok", "--discovery-endpoints", service.Endpoint, "--discovery-user", "root:pass",
				}})
				s.Endpoint = strings.TrimPrefix(client, "http://")
				all = append(all, s)
				if i == 2 { // the fourth comes when the cluster is full
					for _, s := range all {
						s.Ready(t)
					}
				}
			}
			if code := all[3].Exit(t); code == 0 || !strings.Contains(all[3].Log.String(), "discovery: cluster is full") {
				t.Errorf("the fourth ended with %d", code)
			}
			_, err = all[0].Client(t).Put(ctx, "k", "v")
			check(t, err)
			resp, err := all[2].Client(t).MemberList(ctx)
			check(t, err)
			if len(resp.Members) != 3 {
				t.Errorf("%d members", len(resp.Members))
			}
			// Once there is data, nothing is discovered any more.
			service.Kill()
			all[1].Kill()
			start2 := time.Now()
			all[1].Restart(t)
			if took := time.Since(start2); took > 10*time.Second {
				t.Errorf("the restart took %v", took)
			}
		})
	}
}
