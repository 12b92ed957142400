package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"quire/cmd/quire/certs"
)

// Security is what one endpoint, clients or peers, does about TLS.
type Security struct {
	certs.Config
	AutoTLS bool // make certificates if there are none
}

// autoTLSDir lies in the data directory, as etcd's does; below it a folder for
// each endpoint.
const autoTLSDir = "fixtures"

// settleTLS carries the settings that both endpoints share into each.
func (c *Config) settleTLS() {
	suites, _ := certs.CipherSuites(c.CipherSuites) // Validate reports faults
	least, _ := certs.Version(c.TLSMinVersion)
	newest, _ := certs.Version(c.TLSMaxVersion)
	if c.DiscoverySRV.Domain != "" && c.PeerTLS.TrustedCAFile == "" {
		// As in etcd: the peers that DNS names have certificates for the domain.
		c.PeerTLS.ServerName = c.DiscoverySRV.Domain
	}
	for _, s := range []*Security{&c.ClientTLS, &c.PeerTLS} {
		s.CipherSuites, s.MinVersion, s.MaxVersion = suites, least, newest
	}
}

func (c *Config) checkTLS() (faults []error) {
	if _, err := certs.CipherSuites(c.CipherSuites); err != nil {
		faults = append(faults, err)
	}
	least, err := certs.Version(c.TLSMinVersion)
	if err != nil {
		faults = append(faults, err)
	}
	newest, err := certs.Version(c.TLSMaxVersion)
	switch {
	case err != nil:
		faults = append(faults, err)
	case newest != 0 && least > newest:
		faults = append(faults, fmt.Errorf("min version (%s) is greater than max version (%s)", c.TLSMinVersion, c.TLSMaxVersion))
	}
	if c.TLSMinVersion == "TLS1.3" && len(c.CipherSuites) > 0 {
		faults = append(faults, errors.New("cipher suites cannot be configured when only TLS1.3 is enabled"))
	}
	for _, s := range []struct {
		*Security
		prefix string
	}{{&c.ClientTLS, "--"}, {&c.PeerTLS, "--peer-"}} {
		if s.Empty() {
			continue // whatever else is set has no effect without a certificate
		}
		if err := s.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("%scert-file: %w", s.prefix, err))
		}
	}
	if (c.ClientTLS.AutoTLS || c.PeerTLS.AutoTLS) && c.SelfSignedValidity == 0 {
		faults = append(faults, errors.New("--self-signed-cert-validity: selfSignedCertValidity is invalid,it should be greater than 0"))
	}
	return append(faults, c.checkSecureURLs()...)
}

// checkSecureURLs wants a certificate for every URL that asks for TLS.
func (c *Config) checkSecureURLs() (faults []error) {
	for _, l := range []struct {
		urls urlList
		tls  *Security
		text string
	}{
		{c.ListenClientURLs, &c.ClientTLS, "TLS key/cert (--cert-file, --key-file) must be provided for client url %s with HTTPS scheme"},
		{c.ListenClientHTTP, &c.ClientTLS, "TLS key/cert (--cert-file, --key-file) must be provided for client url %s with HTTPS scheme"},
		{c.ListenMetricsURLs, &c.ClientTLS, "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url %s"},
		{c.ListenPeerURLs, &c.PeerTLS, "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url %s with HTTPS scheme"},
	} {
		for _, u := range l.urls {
			if isSecure(u) && l.tls.Empty() && !l.tls.AutoTLS {
				faults = append(faults, fmt.Errorf(l.text, u.String()))
			}
		}
	}
	for _, u := range c.ListenClientHTTP {
		network, address := place(u)
		for _, other := range c.ListenClientURLs {
			if n, a := place(other); n == network && a == address && !strings.HasSuffix(a, ":0") {
				faults = append(faults, fmt.Errorf("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url %s", u.String()))
			}
		}
	}
	return faults
}

// security is the TLS of a running server; a store is nil without certificates.
type security struct{ clients, peers *certs.Store }

// dialPeers returns what gives the configuration for dialing peers; nil without
// certificates.
func (t *security) dialPeers() func() *tls.Config {
	if t.peers == nil {
		return nil
	}
	return t.peers.ClientConfig
}

func (t *security) close() {
	for _, s := range []*certs.Store{t.clients, t.peers} {
		if s != nil {
			s.Close()
		}
	}
}

// openSecurity reads the files, and makes those of --auto-tls.
func openSecurity(c *Config, log *zap.Logger, reg prometheus.Registerer) (*security, error) {
	t := &security{}
	for _, e := range []struct {
		to    **certs.Store
		of    *Security
		name  string
		hosts []urlList
		alpn  []string
	}{
		{&t.clients, &c.ClientTLS, "client", []urlList{c.ListenClientURLs, c.ListenClientHTTP}, []string{"h2", "http/1.1"}},
		{&t.peers, &c.PeerTLS, "peer", []urlList{c.ListenPeerURLs}, []string{"http/1.1"}},
	} {
		if err := autoTLS(c, e.of, e.name, e.hosts, log); err != nil {
			return nil, fmt.Errorf("failed to get %s self-signed certs: %w", e.name, err)
		}
		if e.of.Empty() {
			continue
		}
		store, err := certs.Open(e.of.Config, certs.Options{Endpoint: e.name, Logger: log, Protos: e.alpn})
		if err != nil {
			return nil, fmt.Errorf("%s TLS: %w", e.name, err)
		}
		*e.to = store
		if err := reg.Register(store.Collector()); err != nil {
			return nil, err
		}
		log.Info("starting with "+e.name+" TLS", zap.String("tls-info", e.of.String()), zap.Strings("cipher-suites", c.CipherSuites))
	}
	return t, nil
}

func autoTLS(c *Config, of *Security, name string, urls []urlList, log *zap.Logger) error {
	if !of.AutoTLS {
		return nil
	}
	if !of.Empty() {
		log.Warn("ignoring " + name + " auto TLS since certs given")
		return nil
	}
	var hosts []string
	for _, list := range urls {
		for _, u := range list {
			hosts = append(hosts, u.Host)
		}
	}
	made, err := certs.SelfSign(filepath.Join(c.DataDir, autoTLSDir, name), hosts, c.SelfSignedValidity, log)
	if err != nil {
		return err
	}
	// As in etcd, what was set for given certificates does not apply, but the
	// suites and versions do.
	if of.ClientCertAuth || of.TrustedCAFile != "" || of.CRLFile != "" || len(of.AllowedCNs)+len(of.AllowedHostnames) > 0 {
		log.Warn("with " + name + " auto TLS no client certificate is demanded; what was set for that has no effect")
	}
	made.CipherSuites, made.MinVersion, made.MaxVersion = of.CipherSuites, of.MinVersion, of.MaxVersion
	of.Config = made
	return nil
}

// warnPlain says that certificates do not matter where a URL asks for no TLS.
func (t *security) warnPlain(c *Config, log *zap.Logger) {
	for _, l := range []struct {
		urls              urlList
		tls               *Security
		flag, key, scheme string
	}{
		{c.ListenClientURLs, &c.ClientTLS, "--client-cert-auth", "client-url", "http or unix"},
		{c.ListenClientHTTP, &c.ClientTLS, "--client-cert-auth", "client-url", "http or unix"},
		{c.ListenPeerURLs, &c.PeerTLS, "--peer-client-cert-auth", "peer-url", "HTTP"},
	} {
		for _, u := range l.urls {
			if isSecure(u) {
				continue
			}
			if !l.tls.Empty() {
				log.Warn("scheme is "+l.scheme+" while key and cert files are present; ignoring key and cert files", zap.String(l.key, u.String()))
			}
			if l.tls.ClientCertAuth {
				log.Warn("scheme is "+l.scheme+" while "+l.flag+" is enabled; ignoring client cert auth for this URL", zap.String(l.key, u.String()))
			}
		}
	}
}
