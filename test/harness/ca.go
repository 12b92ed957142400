package harness

import (
	"crypto"
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

// CA is a certificate authority of one test. Everything it issues lies in files of a folder of its own.
type CA struct {
	Dir  string
	Cert *x509.Certificate
	key  crypto.Signer
	next int64 // serial number
}

// Subject says whom a certificate is for. The zero value is valid for an hour, for servers and clients at 127.0.0.1.
type Subject struct {
	CN       string
	DNSNames []string
	IPs      []string // nil: 127.0.0.1; an empty list: none
	Expired  bool
}

// Pair is an issued certificate with the files that hold it.
type Pair struct {
	CertFile, KeyFile string
	Cert              *x509.Certificate
	TLS               tls.Certificate
}

// NewCA makes an authority whose folder goes with the test.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ca := &CA{Dir: t.TempDir(), Cert: cert, key: key, next: 1}
	Write(t, ca.File(), pemBlock("CERTIFICATE", der))
	return ca
}

// File is the path of the authority's own certificate.
func (ca *CA) File() string { return filepath.Join(ca.Dir, "ca.pem") }

// Pool holds the authority's certificate.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	return pool
}

// Issue makes a certificate and writes it to NAME.pem and NAME-key.pem, over an earlier one of that name.
func (ca *CA) Issue(t testing.TB, name string, s Subject) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca.next++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(ca.next), Subject: pkix.Name{CommonName: s.CN}, DNSNames: s.DNSNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if s.Expired {
		template.NotAfter = time.Now().Add(-time.Minute)
	}
	if s.IPs == nil {
		s.IPs = []string{"127.0.0.1"}
	}
	for _, ip := range s.IPs {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{
		CertFile: filepath.Join(ca.Dir, name+".pem"), KeyFile: filepath.Join(ca.Dir, name+"-key.pem"), Cert: cert,
		TLS: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}
	Write(t, p.KeyFile, pemBlock("EC PRIVATE KEY", keyDER))
	Write(t, p.CertFile, pemBlock("CERTIFICATE", der))
	return p
}

// Revoke writes a revocation list with these certificates to NAME, in DER, the only form that upstream reads.
func (ca *CA) Revoke(t testing.TB, name string, pairs ...Pair) (file string) {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, p := range pairs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: p.Cert.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(ca.Dir, name)
	Write(t, file, der)
	return file
}

// Write replaces a file as an operator's tools do: under another name first, so that nobody reads half of it.
func Write(t testing.TB, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
