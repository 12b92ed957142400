package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"
)

// Names of the generated files, which are etcd's.
const (
	selfSignedCert = "cert.pem"
	selfSignedKey  = "key.pem"
)

const yearHours = 365 * 24 * time.Hour

// SelfSign returns the Config of a certificate that vouches for itself, for the
// hosts (host:port) of a listener. The files lie in dir and are used again at
// the next start, until the certificate has expired.
func SelfSign(dir string, hosts []string, years uint, log *zap.Logger) (Config, error) {
	if years == 0 {
		return Config{}, errors.New("selfSignedCertValidity is invalid,it should be greater than 0")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Config{}, err
	}
	certFile, err := filepath.Abs(filepath.Join(dir, selfSignedCert))
	if err != nil {
		return Config{}, err
	}
	keyFile := filepath.Join(filepath.Dir(certFile), selfSignedKey)
	cfg := Config{CertFile: certFile, KeyFile: keyFile, ClientCertFile: certFile, ClientKeyFile: keyFile, SelfSigned: true}
	if usable(certFile, keyFile, log) {
		return cfg, nil
	}
	notAfter := time.Now().Add(time.Duration(years) * yearHours)
	log.Warn("automatically generate certificates", zap.Time("certificate-validity-bound-not-after", notAfter))
	certPEM, keyPEM, err := generate(hosts, notAfter)
	if err != nil {
		return Config{}, err
	}
	// The certificate comes last: without it the next start makes both anew.
	if err := writeFile(keyFile, keyPEM, 0o600); err != nil {
		return Config{}, err
	}
	log.Info("created key file", zap.String("path", keyFile))
	if err := writeFile(certFile, certPEM, 0o644); err != nil {
		return Config{}, err
	}
	log.Info("created cert file", zap.String("path", certFile))
	return cfg, nil
}

// usable reports whether files of an earlier start can be used again.
func usable(certFile, keyFile string, log *zap.Logger) bool {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false
	case err != nil:
		log.Warn("cannot use the generated certificate of an earlier start", zap.String("path", certFile), zap.Error(err))
		return false
	case time.Now().After(pair.Leaf.NotAfter):
		log.Warn("the generated certificate of an earlier start has expired", zap.String("path", certFile), zap.Time("not-after", pair.Leaf.NotAfter))
		return false
	}
	return true
}

// generate makes a certificate that is its own authority, so that clients can
// be given it as the one to trust.
func generate(hosts []string, notAfter time.Time) (certPEM, keyPEM []byte, err error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"etcd"}},
		NotBefore:    time.Now(), NotAfter: notAfter,
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	for _, hostport := range hosts {
		host, _, _ := net.SplitHostPort(hostport) // a socket's path has no port and names nobody
		switch ip := net.ParseIP(host); {
		case ip != nil:
			template.IPAddresses = append(template.IPAddresses, ip)
		case host != "" && !slices.Contains(template.DNSNames, host):
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// writeFile replaces a file as a whole.
func writeFile(name string, b []byte, mode os.FileMode) error {
	if err := os.WriteFile(name+".tmp", b, mode); err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	return os.Rename(name+".tmp", name)
}
