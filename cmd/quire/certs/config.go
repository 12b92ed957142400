package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
)

// Config names the files of one endpoint (clients or peers) and the rules that
// go with them. They are those of etcd's flags.
type Config struct {
	// CertFile and KeyFile are what a listener presents.
	CertFile, KeyFile string
	// ClientCertFile and ClientKeyFile are what we present when we dial; empty:
	// the listener's.
	ClientCertFile, ClientKeyFile string
	// TrustedCAFile signs the other side's certificates. With it a listener
	// demands a certificate of its clients, whether ClientCertAuth is set or not.
	TrustedCAFile string
	// ClientCertAuth demands a client certificate; without TrustedCAFile it is
	// checked against the system's authorities.
	ClientCertAuth bool
	// CRLFile lists revoked certificates, in DER or PEM.
	CRLFile string
	// AllowedCNs and AllowedHostnames, of which only one may be set, limit whose
	// certificates are accepted.
	AllowedCNs, AllowedHostnames []string
	// SkipClientSANVerify leaves out the check that a client's certificate names
	// the address it comes from, where a listener makes it.
	SkipClientSANVerify bool

	// CipherSuites limits TLS 1.2; empty: Go's choice.
	CipherSuites []uint16
	// MinVersion is TLS 1.2 if zero; MaxVersion is Go's newest if zero.
	MinVersion, MaxVersion uint16
	// ServerName is whom we expect when we dial, if not the dialed host.
	ServerName string

	// SelfSigned marks files that SelfSign made: whoever dials cannot verify them.
	SelfSigned bool
}

// Empty reports whether there is no certificate to present.
func (c *Config) Empty() bool { return c.CertFile == "" && c.KeyFile == "" }

// String tells where the files lie, for the log.
func (c *Config) String() string {
	return fmt.Sprintf("cert = %s, key = %s, client-cert=%s, client-key=%s, trusted-ca = %s, client-cert-auth = %v, crl-file = %s",
		c.CertFile, c.KeyFile, c.ClientCertFile, c.ClientKeyFile, c.TrustedCAFile, c.ClientCertAuth, c.CRLFile)
}

// Validate returns every contradiction, without looking at the files.
func (c *Config) Validate() error {
	var errs []error
	if c.CertFile == "" || c.KeyFile == "" {
		errs = append(errs, fmt.Errorf("KeyFile and CertFile must both be present[key: %v, cert: %v]", c.KeyFile, c.CertFile))
	}
	if (c.ClientCertFile == "") != (c.ClientKeyFile == "") {
		errs = append(errs, fmt.Errorf("ClientKeyFile and ClientCertFile must both be present or both absent: key: %v, cert: %v]",
			c.ClientKeyFile, c.ClientCertFile))
	}
	if len(c.AllowedCNs) > 0 && len(c.AllowedHostnames) > 0 {
		errs = append(errs, fmt.Errorf("AllowedCNs and AllowedHostnames are mutually exclusive (cns=%q, hostnames=%q)",
			c.AllowedCNs, c.AllowedHostnames))
	}
	return errors.Join(errs...)
}

// legacySuites are names that etcd still takes for two suites.
var legacySuites = map[string]uint16{
	"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
}

// CipherSuites turns names into what Config takes.
func CipherSuites(names []string) ([]uint16, error) {
	var ids []uint16
	known := slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites())
	for _, name := range names {
		id, ok := legacySuites[name]
		if i := slices.IndexFunc(known, func(s *tls.CipherSuite) bool { return s.Name == name }); i >= 0 {
			id, ok = known[i].ID, true
		}
		if !ok {
			return nil, fmt.Errorf("unexpected TLS cipher suite %q", name)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// Version turns a name into what Config takes; the empty one leaves it to Go.
func Version(name string) (uint16, error) {
	switch name {
	case "":
		return 0, nil
	case "TLS1.2":
		return tls.VersionTLS12, nil
	case "TLS1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("unexpected TLS version %q (must be one of: TLS1.2, TLS1.3)", name)
}
