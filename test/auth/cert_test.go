package auth

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"quire/test/harness"
)

// TestCommonName says who one is by a client certificate.
func TestCommonName(t *testing.T) {
	t.Parallel()
	ca := harness.NewCA(t, "clients")
	own := ca.Issue(t, "server", harness.Subject{CN: "server", DNSNames: []string{"localhost"}})
	s := harness.StartConfig(t, harness.Config{Secure: true, Flags: []string{cheap, "--client-cert-auth", "--trusted-ca-file", ca.File(),
		"--cert-file", own.CertFile, "--key-file", own.KeyFile}})
	config := func(cn string) *tls.Config {
		return &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{ca.Issue(t, "client-"+cn, harness.Subject{CN: cn}).TLS}}
	}
	by := func(cn string) *certified {
		conn, err := grpc.NewClient(s.Endpoint, grpc.WithTransportCredentials(credentials.NewTLS(config(cn))))
		check(t, err)
		t.Cleanup(func() { conn.Close() })
		return &certified{pb.NewKVClient(conn), pb.NewAuthClient(conn)}
	}
	root := by("root")
	(&server{Server: s, auth: root.auth}).setUp(t)
	ctx := harness.Context(t)

	ranged := by("ranged")
	_, err := ranged.kv.Put(ctx, put("a/1"))
	check(t, err)
	_, err = ranged.kv.Put(ctx, put("b"))
	denied(t, "by certificate", err)
	_, err = root.kv.Put(ctx, put("b"))
	check(t, err)
	_, err = by("stranger").kv.Put(ctx, put("a/1"))
	denied(t, "a name that is no user's", err)
	_, err = by("").kv.Put(ctx, put("a/1"))
	denied(t, "a certificate without a name", err)

	login, err := ranged.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "pw"})
	check(t, err)
	_, err = ranged.kv.Put(withToken(ctx, login.Token), put("b"))
	check(t, err) // a token goes before a certificate
	_, err = root.kv.Put(withToken(ctx, "junk"), put("b"))
	badToken(t, "a bad token with root's certificate", err)

	// CVE-2018-16886: through the gateway a certificate says nothing.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config("root"), DisableKeepAlives: true}}
	answer, err := client.Post("https://"+s.Endpoint+"/v3/kv/put", "application/json", strings.NewReader(`{"key":"Yg==","value":"Zm9yZ2Vk"}`))
	check(t, err)
	body, err := io.ReadAll(answer.Body)
	check(t, err)
	answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		t.Errorf("a put through the gateway by root's certificate: %s", body)
	}
	got, err := root.kv.Range(ctx, &pb.RangeRequest{Key: []byte("b")})
	check(t, err)
	if len(got.Kvs) != 1 || string(got.Kvs[0].Value) == "forged" {
		t.Errorf("got %v", got.Kvs)
	}
}

// certified is what one certificate reaches.
type certified struct {
	kv   pb.KVClient
	auth pb.AuthClient
}
