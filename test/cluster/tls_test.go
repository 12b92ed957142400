package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"quire/test/harness"
)

// TestEncrypted: clusters whose members and clients talk TLS work, lose a leader, and get a new member.
func TestEncrypted(t *testing.T) {
	t.Parallel()
	for name, security := range map[string]harness.Security{"mutual": harness.Mutual, "auto": harness.AutoTLS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, ctx := harness.StartClusterConfig(t, harness.ClusterConfig{Size: 3, Security: security}), harness.Context(t)
			for i, s := range c.Servers {
				_, err := c.Client(t, s).Put(ctx, fmt.Sprint("k", i), "v")
				check(t, err)
			}
			gone := c.Leader(t)
			gone.Kill()
			rest := c.Client(t, c.Others(gone)...)
			_, err := rest.Put(ctx, "k3", "without the leader")
			check(t, err)
			gone.Restart(t)
			settled(t, c)
			place := c.NewPlace(t)
			patiently(t, func() (any, error) { return rest.MemberAdd(ctx, []string{place.URL()}) })
			c.Add(t, "m4", place).Ready(t)
			sameData(ctx, t, c)
			for _, s := range c.Servers {
				resp, err := c.Client(t, s).Get(ctx, "k", clientv3.WithPrefix())
				check(t, err)
				if len(resp.Kvs) != 4 {
					t.Errorf("%d keys on %s", len(resp.Kvs), s.Endpoint)
				}
			}
		})
	}
}

// TestNoWayInWithoutACertificate: neither a client nor a peer without a certificate of the authority is let in.
func TestNoWayInWithoutACertificate(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartClusterConfig(t, harness.ClusterConfig{Size: 3, Security: harness.Mutual}), harness.Context(t)
	stranger := harness.NewCA(t, "stranger").Issue(t, "x", harness.Subject{CN: "x"})
	for name, config := range map[string]*tls.Config{
		"none":              {InsecureSkipVerify: true},
		"another authority": {InsecureSkipVerify: true, Certificates: []tls.Certificate{stranger.TLS}},
	} {
		for what, address := range map[string]string{
			"client": c.Servers[0].Endpoint, "peer": strings.TrimPrefix(c.PeerURL(c.Servers[0]), "https://"),
		} {
			conn, err := tls.Dial("tcp", address, config)
			if err == nil { // TLS 1.3: the refusal comes with the first read
				check(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "tls: ") {
				t.Errorf("%s port, certificate: %s: %v", what, name, err)
			}
		}
	}
	bare, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), TLS: &tls.Config{InsecureSkipVerify: true}, Logger: zap.NewNop()})
	check(t, err)
	defer bare.Close()
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := bare.Get(short, "k"); err == nil {
		t.Error("a client without a certificate was answered")
	}
	_, err = c.Client(t).Put(ctx, "k", "v")
	check(t, err)
}

// TestRevokedMember: a member whose certificate is revoked while all run is let in no more when it connects anew, and is
// again with a new certificate. Nobody else is started again for that.
func TestRevokedMember(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartClusterConfig(t, harness.ClusterConfig{Size: 3, Security: harness.Mutual}), harness.Context(t)
	lead := c.Leader(t)
	victim := c.Others(lead)[0]
	rest := c.Client(t, c.Others(victim)...)
	_, err := rest.Put(ctx, "k", "v")
	check(t, err)
	victim.Kill()
	c.Revoke(t, victim)
	time.Sleep(1100 * time.Millisecond) // files are looked at once a second
	victim.Relaunch(t)
	if !lead.Log.Wait(" revoked", 20*time.Second) {
		t.Error("the leader does not say that it has refused a revoked certificate")
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if resp, err := c.Client(t, victim).Get(short, "k"); err == nil {
		t.Errorf("the revoked member answers a linearizable read: %v", resp.Kvs)
	}
	_, err = rest.Put(ctx, "k", "w")
	check(t, err)
	c.Reissue(t, victim)
	victim.Ready(t)
	resp, err := c.Client(t, victim).Get(ctx, "k")
	check(t, err)
	if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "w" {
		t.Errorf("the member reads %v with its new certificate", resp.Kvs)
	}
}
