package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
)

// verifyClientSAN checks that a client's certificate names the address that the
// client comes from: by IP address, else by a DNS name that the address resolves
// to or that resolves to the address. A certificate without names passes. It is
// etcd's rule for peers and for the metrics port.
func verifyClientSAN(ctx context.Context, conn *tls.Conn) error {
	certs := conn.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return nil
	}
	return checkSAN(ctx, certs[0], conn.RemoteAddr())
}

func checkSAN(ctx context.Context, cert *x509.Certificate, from net.Addr) error {
	if len(cert.IPAddresses) == 0 && len(cert.DNSNames) == 0 {
		return nil
	}
	if from.Network() == "unix" {
		return nil // a socket file has no address; who may open it is the file system's affair
	}
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		return err
	}
	if len(cert.IPAddresses) > 0 {
		err := cert.VerifyHostname(host)
		if err == nil || len(cert.DNSNames) == 0 {
			return err
		}
	}
	found, err := namesHost(ctx, cert.DNSNames, host)
	if found {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tls: %q does not match any of DNSNames %q (%w)", host, cert.DNSNames, err)
	}
	return fmt.Errorf("tls: %q does not match any of DNSNames %q", host, cert.DNSNames)
}

// namesHost asks the resolver both ways; a wildcard can only match what the
// address resolves to.
func namesHost(ctx context.Context, names []string, host string) (found bool, err error) {
	reverse, err := net.DefaultResolver.LookupAddr(ctx, host)
	for _, name := range reverse {
		name = strings.TrimSuffix(name, ".")
		for _, pattern := range names {
			suffix, wildcard := strings.CutPrefix(pattern, "*")
			wildcard = wildcard && strings.HasPrefix(suffix, ".")
			if name == pattern || wildcard && strings.HasSuffix(name, suffix) {
				return true, nil
			}
		}
	}
	for _, name := range names {
		if strings.HasPrefix(name, "*.") {
			continue
		}
		addrs, lookupErr := net.DefaultResolver.LookupHost(ctx, name)
		if lookupErr != nil {
			err = lookupErr
		}
		if slices.Contains(addrs, host) {
			return true, nil
		}
	}
	return false, err
}
