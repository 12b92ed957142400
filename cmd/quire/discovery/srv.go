package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// SRV is a DNS domain whose records name the members.
type SRV struct {
	Domain string
	// Suffix is --discovery-srv-name: the service is etcd-server-SUFFIX.
	Suffix string
}

// resolver is DNS; net.DefaultResolver.
type resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
	LookupHost(ctx context.Context, host string) (addrs []string, err error)
}

// Lookup returns the members in the form of --initial-cluster. This member is the
// one with one of its advertised URLs; the others get numbers for names. Records
// for TLS and without are both asked for, and one of them suffices.
func (s SRV) Lookup(ctx context.Context, name string, advertised []url.URL, log *zap.Logger) (string, error) {
	return s.lookup(ctx, net.DefaultResolver, name, advertised, log)
}

func (s SRV) lookup(ctx context.Context, dns resolver, name string, advertised []url.URL, log *zap.Logger) (string, error) {
	suffix := s.Suffix
	if suffix != "" {
		suffix = "-" + suffix
	}
	own := map[string]url.URL{}
	for _, u := range advertised {
		addr, err := resolve(ctx, dns, u.Host)
		if err != nil {
			return "", fmt.Errorf("resolving --initial-advertise-peer-urls: %w", err)
		}
		own[addr] = u
	}
	var all []string
	var errs []error
	for _, kind := range []struct{ scheme, service string }{{"https", "etcd-server-ssl" + suffix}, {"http", "etcd-server" + suffix}} {
		found, err := records(ctx, dns, kind.scheme, kind.service, s.Domain, name, own, len(all))
		log.Info("get cluster for "+strings.TrimSuffix(kind.service, suffix)+" SRV", zap.String("service-scheme", kind.scheme),
			zap.String("service-name", kind.service), zap.String("server-name", name), zap.String("discovery-srv", s.Domain),
			zap.Strings("found-cluster", found), zap.Error(err))
		all = append(all, found...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(all) == 0 {
		return "", errors.Join(errs...)
	}
	for _, m := range all {
		log.Info("got bootstrap from DNS for etcd-server", zap.String("node", m))
		if strings.HasPrefix(m, name+"=") {
			return strings.Join(all, ","), nil
		}
	}
	return "", fmt.Errorf("cannot find local etcd member %q in SRV records", name)
}

// records asks for one service. A record that cannot be used is left out; if
// none is left, that is the error.
func records(ctx context.Context, dns resolver, scheme, service, domain, name string, own map[string]url.URL, next int) (found []string, err error) {
	_, addrs, err := dns.LookupSRV(ctx, service, "tcp", domain)
	if err != nil {
		return nil, fmt.Errorf("error querying DNS SRV records for _%s %w", service, err)
	}
	var fault error
	for _, srv := range addrs {
		port := strconv.Itoa(int(srv.Port))
		addr, err := resolve(ctx, dns, net.JoinHostPort(srv.Target, port))
		if err != nil {
			fault = err
			continue
		}
		// Records end with a dot, URLs do not.
		host := net.JoinHostPort(strings.TrimSuffix(srv.Target, "."), port)
		as := name
		u, mine := own[addr]
		if !mine {
			as = strconv.Itoa(next)
			next++
		} else if u.Scheme != scheme {
			fault = fmt.Errorf("bootstrap at %s from DNS for %s has scheme mismatch with expected peer %s", scheme+"://"+host, service, u.String())
			continue
		}
		found = append(found, as+"="+scheme+"://"+host)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("error querying DNS SRV records for _%s %w", service, fault)
	}
	return found, nil
}

// resolve makes an address of a host and port.
func resolve(ctx context.Context, dns resolver, hostPort string) (string, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return "", err
	}
	if net.ParseIP(host) != nil {
		return hostPort, nil
	}
	addrs, err := dns.LookupHost(ctx, host)
	if err != nil {
		return "", err
	}
	if len(addrs) == 0 {
		return "", fmt.Errorf("%s has no address", host)
	}
	return net.JoinHostPort(addrs[0], port), nil
}
