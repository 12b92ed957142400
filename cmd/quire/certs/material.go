package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// material is the parsed content of all files as of one moment.
type material struct {
	sums   [][sha256.Size]byte
	server *tls.Config
	client *tls.Config
	facts  []fact
}

// fact is a certificate or list with its end, for the metrics.
type fact struct {
	kind, name, serial string
	ends               time.Time
}

// files are the contents that a material is made of; those that are not
// configured stay empty.
type files struct{ cert, key, clientCert, clientKey, ca, crl content }

func (f *files) each(c *Config, do func(path string, to *content) error) error {
	for _, part := range []struct {
		path string
		to   *content
	}{
		{c.CertFile, &f.cert}, {c.KeyFile, &f.key}, {c.ClientCertFile, &f.clientCert},
		{c.ClientKeyFile, &f.clientKey}, {c.TrustedCAFile, &f.ca}, {c.CRLFile, &f.crl},
	} {
		if part.path == "" {
			continue
		}
		if err := do(part.path, part.to); err != nil {
			return err
		}
	}
	return nil
}

// load reads all files of c.
func load(c *Config) (f files, sums [][sha256.Size]byte, err error) {
	err = f.each(c, func(path string, to *content) error {
		got, err := read(path)
		*to = got
		sums = append(sums, got.sum)
		return err
	})
	return f, sums, err
}

// newMaterial parses what was read.
func newMaterial(c *Config, f files, sums [][sha256.Size]byte, protos []string) (*material, error) {
	m := &material{sums: sums}
	leaf, err := m.pair(f.cert, f.key, "server")
	if err != nil {
		return nil, err
	}
	dialing := leaf
	if c.ClientCertFile != "" {
		if dialing, err = m.pair(f.clientCert, f.clientKey, "client"); err != nil {
			return nil, err
		}
	}
	var pool *x509.CertPool
	if c.TrustedCAFile != "" {
		if pool, err = m.authorities(f.ca); err != nil {
			return nil, err
		}
	}
	check := &verifier{cns: c.AllowedCNs, hostnames: c.AllowedHostnames}
	if c.CRLFile != "" {
		if check.revoked, err = m.revocations(f.crl); err != nil {
			return nil, err
		}
	}
	m.server, m.client = c.configs(leaf, dialing, pool, check)
	m.server.NextProtos = protos
	return m, nil
}

// configs makes the configuration of a listener and that of a dialer.
func (c *Config) configs(leaf, dialing tls.Certificate, pool *x509.CertPool, check *verifier) (server, client *tls.Config) {
	minVersion := c.MinVersion
	if minVersion == 0 {
		minVersion = tls.VersionTLS12
	}
	server = &tls.Config{
		Certificates: []tls.Certificate{leaf},
		MinVersion:   minVersion, MaxVersion: c.MaxVersion, CipherSuites: c.CipherSuites,
		ClientCAs:        pool,
		VerifyConnection: check.verify,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if p, ok := hello.Conn.(*pending); ok {
				p.offered = hello.SupportedProtos
			}
			return nil, nil // this one
		},
	}
	if c.TrustedCAFile != "" || c.ClientCertAuth {
		server.ClientAuth = tls.RequireAndVerifyClientCert
	}
	client = &tls.Config{
		Certificates: []tls.Certificate{dialing},
		MinVersion:   minVersion, MaxVersion: c.MaxVersion, CipherSuites: c.CipherSuites,
		RootCAs:            pool,
		ServerName:         c.ServerName,
		InsecureSkipVerify: c.SelfSigned, // nobody vouches for it: it only encrypts
		VerifyConnection:   check.verify,
	}
	return server, client
}

func (m *material) pair(cert, key content, kind string) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert.bytes, key.bytes)
	if err != nil {
		return pair, fmt.Errorf("%s, %s: %w", cert.path, key.path, err)
	}
	m.note(kind, pair.Leaf)
	return pair, nil
}

func (m *material) note(kind string, c *x509.Certificate) {
	name := c.Subject.CommonName
	if name == "" {
		name = c.Subject.String()
	}
	m.facts = append(m.facts, fact{kind, name, fmt.Sprintf("%x", c.SerialNumber), c.NotAfter})
}

func (m *material) authorities(ca content) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	found := false
	for block, rest := pem.Decode(ca.bytes); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue // a key or parameters beside it do no harm
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ca.path, err)
		}
		pool.AddCert(cert)
		m.note("ca", cert)
		found = true
	}
	if !found {
		return nil, fmt.Errorf("%s: no certificate in PEM form", ca.path)
	}
	return pool, nil
}

// revocations reads one list in DER or any number in PEM.
func (m *material) revocations(crl content) (map[string]struct{}, error) {
	lists := [][]byte{crl.bytes}
	if block, rest := pem.Decode(crl.bytes); block != nil {
		lists = nil
		for ; block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "X509 CRL" {
				lists = append(lists, block.Bytes)
			}
		}
	}
	if len(lists) == 0 {
		return nil, fmt.Errorf("%s: no revocation list", crl.path)
	}
	revoked := map[string]struct{}{}
	for i, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", crl.path, err)
		}
		for _, entry := range list.RevokedCertificateEntries {
			revoked[string(entry.SerialNumber.Bytes())] = struct{}{}
		}
		m.facts = append(m.facts, fact{"crl", list.Issuer.String(), fmt.Sprint(i), list.NextUpdate})
	}
	return revoked, nil
}

// verifier is what is asked of the other side's certificates beyond a valid
// chain. It runs within the handshake, for resumed sessions too.
type verifier struct {
	cns, hostnames []string
	revoked        map[string]struct{} // serial numbers, as etcd compares them: whoever issued them
}

var errNotAllowed = errors.New("client certificate authentication failed")

func (v *verifier) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	for _, c := range cs.PeerCertificates {
		if serial := c.SerialNumber.Bytes(); v.isRevoked(serial) {
			return fmt.Errorf("transport: certificate serial %x revoked", serial)
		}
	}
	if len(v.cns) == 0 && len(v.hostnames) == 0 {
		return nil
	}
	for _, chain := range cs.VerifiedChains {
		if len(chain) > 0 && v.allows(chain[0]) {
			return nil
		}
	}
	return errNotAllowed
}

func (v *verifier) isRevoked(serial []byte) bool {
	_, ok := v.revoked[string(serial)]
	return ok
}

func (v *verifier) allows(c *x509.Certificate) bool {
	for _, cn := range v.cns {
		if cn == c.Subject.CommonName {
			return true
		}
	}
	for _, h := range v.hostnames {
		if c.VerifyHostname(h) == nil {
			return true
		}
	}
	return false
}
