package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec for generated messages
)

// maxReplyBytes admits the largest list page a workload can ask for; etcd's
// clients allow 2 GiB, a load generator on a small host should not.
const maxReplyBytes = 256 << 20

// Options says where and how to connect.
type Options struct {
	// Endpoints are host:port, with or without http:// or https://.
	Endpoints []string
	// Conns is the number of connections; at least 1.
	Conns int
	// AllowRemote permits endpoints that are not on the loopback. Without it
	// a typing error cannot put load on somebody's cluster.
	AllowRemote bool
	// Light uses the light client in place of grpc-go's.
	Light bool
	// CAFile, CertFile and KeyFile are PEM files; CAFile switches TLS on,
	// CertFile and KeyFile add a client certificate.
	CAFile, CertFile, KeyFile string
}

// Pool is a fixed set of connections.
type Pool struct {
	conns []Conn
}

// Conn is one connection; generated stubs take it.
type Conn interface {
	grpc.ClientConnInterface
	Close() error
}

// Open connects and returns when every connection is ready or ctx is over.
func Open(ctx context.Context, opts Options) (*Pool, error) {
	addrs, err := opts.addresses()
	if err != nil {
		return nil, err
	}
	connect := dial
	if opts.Light {
		connect = func(ctx context.Context, addr string, o Options) (Conn, error) { return dialLight(ctx, addr, o) }
	}
	p := &Pool{}
	for i := range max(opts.Conns, 1) {
		cc, err := connect(ctx, addrs[i%len(addrs)], opts)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.conns = append(p.conns, cc)
	}
	return p, nil
}

// Len is the number of connections.
func (p *Pool) Len() int { return len(p.conns) }

// Conn is connection i modulo the number of connections.
func (p *Pool) Conn(i int) Conn { return p.conns[i%len(p.conns)] }

// Close closes every connection; calls under way fail.
func (p *Pool) Close() error {
	var errs []error
	for _, cc := range p.conns {
		errs = append(errs, cc.Close())
	}
	return errors.Join(errs...)
}

// redialPause is short: the restart measurement needs the first moment at which
// a server answers.
const redialPause = 2 * time.Millisecond

// dial connects with grpc-go.
func dial(ctx context.Context, addr string, o Options) (Conn, error) {
	cfg, err := o.tlsConfig()
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if cfg != nil {
		creds = credentials.NewTLS(cfg)
	}
	cc, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialPause, Multiplier: 1, MaxDelay: redialPause},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{messages: encoding.GetCodecV2("proto")}),
			grpc.MaxCallRecvMsgSize(maxReplyBytes),
			grpc.MaxCallSendMsgSize(maxReplyBytes),
		),
	)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", addr, err)
	}
	cc.Connect()
	if err := waitReady(ctx, cc); err != nil {
		return nil, errors.Join(err, cc.Close())
	}
	return cc, nil
}

// waitReady returns when cc can carry calls.
func waitReady(ctx context.Context, cc *grpc.ClientConn) error {
	for {
		state := cc.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			cc.Connect()
		case connectivity.Shutdown:
			return fmt.Errorf("connection to %s is closed", cc.Target())
		}
		if !cc.WaitForStateChange(ctx, state) {
			return fmt.Errorf("connection to %s is not ready (%v): %w", cc.Target(), state, ctx.Err())
		}
	}
}

// addresses strips the schemes and refuses what is not on the loopback.
func (o Options) addresses() ([]string, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("no endpoint")
	}
	var addrs []string
	for _, e := range o.Endpoints {
		addr := strings.TrimPrefix(strings.TrimPrefix(e, "http://"), "https://")
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("endpoint %q: %w", e, err)
		}
		if !o.AllowRemote && !isLoopback(host) {
			return nil, fmt.Errorf("endpoint %q is not on the loopback; allow remote load explicitly if you mean it", e)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// tlsConfig is nil, which means plain text, unless a CA is given.
func (o Options) tlsConfig() (*tls.Config, error) {
	if o.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in it", o.CAFile)
	}
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
