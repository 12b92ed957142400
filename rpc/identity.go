package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"quire/engine"
	"quire/engine/auth"

	pb "quire/api/etcdserverpb"
)

// Who a request is from. While authentication is off nobody asks, and nothing
// here costs more than one atomic load.

// Where clients put their token, and the mark of the JSON gateway.
const (
	tokenKey         = "token"         // gRPC clients
	authorizationKey = "authorization" // JSON clients, with or without "Bearer "
	gatewayKey       = "grpcgateway-accept"
)

// identify returns on whose behalf a request with this context comes: that of
// its token, else that of its client certificate, else nobody.
func (s *Server) identify(ctx context.Context) (auth.Identity, error) {
	if !s.cfg.Auth.Enabled() {
		return auth.Identity{}, nil
	}
	// The revision comes first, so that it is never newer than the identity.
	revision := s.cfg.Auth.Revision()
	if token, ok := tokenOf(ctx); ok {
		id, ok := s.cfg.Tokens.Identify(ctx, token, revision)
		if !ok {
			s.cfg.Logger.Warn("invalid auth token")
			return auth.Identity{}, errInvalidAuthToken
		}
		return id, nil
	}
	if s.cfg.ClientCertAuth {
		return s.certificateIdentity(ctx, revision), nil
	}
	return auth.Identity{}, nil
}

func tokenOf(ctx context.Context) (token string, ok bool) {
	for _, key := range [...]string{tokenKey, authorizationKey} {
		if v := metadata.ValueFromIncomingContext(ctx, key); len(v) > 0 {
			return strings.TrimPrefix(v[0], "Bearer "), true
		}
	}
	return "", false
}

// certificateIdentity is the common name of the client's verified certificate.
// What comes through a JSON gateway does not count: the certificate is that of
// the gateway, not of whoever uses it (CVE-2018-16886).
func (s *Server) certificateIdentity(ctx context.Context, revision uint64) auth.Identity {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return auth.Identity{}
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return auth.Identity{}
	}
	for _, chain := range info.State.VerifiedChains {
		if len(chain) == 0 {
			continue
		}
		if len(metadata.ValueFromIncomingContext(ctx, gatewayKey)) > 0 {
			s.cfg.Logger.Debug("ignoring the common name of a request through a gateway")
			return auth.Identity{}
		}
		return auth.Identity{User: chain[0].Subject.CommonName, Revision: revision, Known: true}
	}
	return auth.Identity{}
}

// authorize refuses who is not what a method needs. Authentication is enabled.
func (s *Server) authorize(ctx context.Context, need AuthNeed) error {
	id, err := s.identify(ctx)
	switch {
	case err != nil:
		return StatusOf(err)
	case need == AuthRoot:
		err = s.cfg.Auth.Admin(id)
	case !id.Known && s.cfg.Auth.Enabled():
		err = auth.ErrUserEmpty
	}
	if err != nil {
		return StatusOf(err)
	}
	return nil
}

// require ends the call, and is false, if its client is not what is needed.
func (c *Call) require(need AuthNeed) bool {
	if c.own || !c.srv.cfg.Auth.Enabled() {
		return true
	}
	if err := c.srv.authorize(c.Ctx, need); err != nil {
		c.Fail(err)
		return false
	}
	return true
}

// identity returns on whose behalf the call is served: the server's own calls
// have root's rights.
func (c *Call) identity() (auth.Identity, error) {
	if c.own && c.srv.cfg.Auth.Enabled() {
		return auth.Identity{User: "root", Revision: c.srv.cfg.Auth.Revision(), Known: true}, nil
	}
	return c.srv.identify(c.Ctx)
}

// access returns what the call may read. A read asks still with the identity
// when it is done.
func (c *Call) access() (auth.Identity, auth.Access, error) {
	id, err := c.identity()
	return id, c.srv.cfg.Auth.Access(id), err
}

// still refuses a read if users, roles or permissions have changed since it was
// permitted.
func (s *Server) still(id auth.Identity) error {
	if id.Revision != 0 && id.Revision != s.cfg.Auth.Revision() {
		return auth.ErrOldRevision
	}
	return nil
}

// proposeAs is propose for operations that are done with the client's rights;
// the engine checks these when it applies the operation.
func (c *Call) proposeAs(kind engine.OpKind, body []byte) {
	if !c.srv.cfg.Auth.Enabled() {
		c.propose(kind, body)
		return
	}
	id, err := c.identity()
	switch {
	case err != nil:
		c.Fail(err)
		return
	case !id.Known && !c.srv.alarmed():
		// It would be refused when applied. So is it here, and does not fill the
		// log; only that an alarm is what etcd tells first.
		c.Fail(auth.ErrUserEmpty)
		return
	case !id.Known:
		c.propose(kind, body)
		return
	}
	if proposalBytes(body)+identityBytes(id) > c.srv.cfg.MaxRequestBytes {
		c.Fail(errRequestTooLarge)
		return
	}
	c.as = append(engine.AppendAs(c.as[:0], id), byte(kind))
	c.enqueue(c.as, body)
}

func (s *Server) alarmed() bool {
	return s.cfg.Space.HasAlarm(pb.AlarmType_NOSPACE) || s.cfg.Space.HasAlarm(pb.AlarmType_CORRUPT)
}

// identityBytes is how much larger etcd's InternalRaftRequest is with the
// identity in its header: name and revision, and a second byte for the length
// of a header beyond 127 bytes.
func identityBytes(id auth.Identity) int {
	n := 0
	if id.User != "" {
		n += 1 + uvarintBytes(uint64(len(id.User))) + len(id.User)
	}
	if id.Revision != 0 {
		n += 1 + uvarintBytes(id.Revision)
	}
	if n > 127-11 {
		n++
	}
	return n
}

// reason is the text with which etcd refuses or cancels a watch.
type reason struct{ error }

// watchReason gives err the text of a whole gRPC error; nil stays nil.
func watchReason(err error) error {
	if err == nil {
		return nil
	}
	return reason{StatusOf(err).GRPCStatus().Err()}
}
