package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority is a small CA whose files lie in a folder of the test.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), next: 1}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	a.cert = parse(t, must(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))(t))
	put(t, a.file("ca.pem"), "CERTIFICATE", a.cert.Raw)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	return must(x509.ParseCertificate(der))(t)
}

// put replaces a file.
func put(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	if err := writeFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue writes NAME.pem and NAME-key.pem for 127.0.0.1, or as change makes it.
func (a *authority) issue(name string, change func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	a.next++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der := must(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))(a.t)
	put(a.t, a.file(name+"-key.pem"), "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key))(a.t))
	put(a.t, a.file(name+".pem"), "CERTIFICATE", der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parse(a.t, der)}
}

func (a *authority) revoke(name string, asPEM bool, certs ...tls.Certificate) string {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.Leaf.SerialNumber, RevocationTime: time.Now()})
	}
	der := must(x509.CreateRevocationList(rand.Reader, list, a.cert, a.key))(a.t)
	if asPEM {
		put(a.t, a.file(name), "X509 CRL", der)
	} else if err := writeFile(a.file(name), der, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return a.file(name)
}

// config is a listener's that demands certificates of this authority.
func (a *authority) config() Config {
	return Config{CertFile: a.file("server.pem"), KeyFile: a.file("server-key.pem"), TrustedCAFile: a.file("ca.pem")}
}

// trusts is a client's that trusts this authority and presents cert, if any.
func (a *authority) trusts(cert ...tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	client := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	if len(cert) > 0 {
		// Whether the server would want it or not: Go's client holds back what the
		// server's list of authorities does not cover.
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert[0], nil }
	}
	return client
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
