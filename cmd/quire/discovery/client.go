package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "quire/api/etcdserverpb"
)

// Config is how the service is reached, etcd's --discovery-* settings.
type Config struct {
	Token     string
	Endpoints []string

	DialTimeout, RequestTimeout, KeepAliveTime, KeepAliveTimeout time.Duration

	// InsecureTransport does without TLS, except for an endpoint that begins
	// with https.
	InsecureTransport, InsecureSkipVerify bool
	Cert, Key, CACert                     string
	// User may be NAME:PASSWORD.
	User, Password string
}

// Validate reports what does not go together, in etcd's words.
func (c *Config) Validate() (faults []error) {
	if (c.Token != "") != (len(c.Endpoints) > 0) {
		faults = append(faults, errors.New("both --discovery-token and --discovery-endpoints must be set"))
	}
	for _, e := range c.Endpoints {
		if strings.TrimSpace(e) == "" {
			faults = append(faults, errors.New("--discovery-endpoints must not contain empty endpoints"))
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		faults = append(faults, errors.New("--discovery-cert and --discovery-key must both be present or both absent"))
	}
	return faults
}

// client asks the endpoints one after the other and stays with the one that
// answers.
type client struct {
	cfg   Config
	conns []*grpc.ClientConn
	at    int
	token string // of the user; empty: none yet
}

func open(cfg Config) (*client, error) {
	c := &client{cfg: cfg}
	for _, e := range cfg.Endpoints {
		creds, addr, err := cfg.transport(strings.TrimSpace(e))
		if err != nil {
			c.close()
			return nil, err
		}
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds), grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: cfg.KeepAliveTime, Timeout: cfg.KeepAliveTimeout,
		}))
		if err != nil {
			c.close()
			return nil, fmt.Errorf("discovery endpoint %s: %w", e, err)
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

// transport splits an endpoint and chooses how to talk to it.
func (c *Config) transport(endpoint string) (credentials.TransportCredentials, string, error) {
	scheme, addr, found := strings.Cut(endpoint, "://")
	if !found {
		scheme, addr = "", endpoint
	}
	if scheme == "http" || scheme == "" && c.InsecureTransport {
		return insecure.NewCredentials(), addr, nil
	}
	cfg := &tls.Config{InsecureSkipVerify: c.InsecureSkipVerify, MinVersion: tls.VersionTLS12}
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, "", fmt.Errorf("--discovery-cacert: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, "", fmt.Errorf("--discovery-cacert: %s holds no certificate", c.CACert)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, "", fmt.Errorf("--discovery-cert: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(cfg), addr, nil
}

func (c *client) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

func (c *client) get(ctx context.Context, key string, withPrefix bool) (*pb.RangeResponse, error) {
	req := &pb.RangeRequest{Key: []byte(key)}
	if withPrefix {
		req.RangeEnd = []byte(key)
		req.RangeEnd[len(key)-1]++ // the last byte is a letter
	}
	resp := &pb.RangeResponse{}
	return resp, c.call(ctx, "/etcdserverpb.KV/Range", req, resp)
}

func (c *client) put(ctx context.Context, key, value string) error {
	return c.call(ctx, "/etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte(key), Value: []byte(value)}, &pb.PutResponse{})
}

// call asks one endpoint after the other until one answers.
func (c *client) call(ctx context.Context, method string, req, resp proto.Message) (err error) {
	for range c.conns {
		var e error
		if e = c.login(ctx); e == nil {
			e = c.invoke(ctx, method, req, resp)
		}
		if e == nil || ctx.Err() != nil {
			return e
		}
		err = errors.Join(err, e)
		c.at = (c.at + 1) % len(c.conns)
		c.token = "" // it may have ended
	}
	return err
}

func (c *client) invoke(ctx context.Context, method string, req, resp proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout+c.cfg.RequestTimeout)
	defer cancel()
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", c.token)
	}
	proto.Reset(resp)
	return c.conns[c.at].Invoke(ctx, method, req, resp)
}

// login gets a token, if a user is set and there is none.
func (c *client) login(ctx context.Context) error {
	if c.cfg.User == "" || c.token != "" {
		return nil
	}
	name, password := c.cfg.User, c.cfg.Password
	if password == "" {
		name, password, _ = strings.Cut(c.cfg.User, ":")
	}
	resp := &pb.AuthenticateResponse{}
	if err := c.invoke(ctx, "/etcdserverpb.Auth/Authenticate", &pb.AuthenticateRequest{Name: name, Password: password}, resp); err != nil {
		return err
	}
	c.token = resp.Token
	return nil
}
