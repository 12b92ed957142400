package rpc

import (
	"bytes"
	"errors"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/engine"
	"quire/engine/auth"
	"quire/rpc/token"
)

const authService = "etcdserverpb.Auth"

// authMethods: what changes something is checked when it is applied, what reads
// is checked with what it reads. AuthAnybody and AuthHandler do not differ for
// the transport; the former say that no right at all is needed.
func (s *Server) authMethods() []*Method {
	m := func(name string, need AuthNeed, serve Handler) *Method {
		return &Method{Service: authService, Name: name, Auth: need, Unary: serve}
	}
	return []*Method{
		m("AuthEnable", AuthHandler, change(engine.OpAuthEnable, func() request { return &pb.AuthEnableRequest{} })),
		m("AuthDisable", AuthHandler, change(engine.OpAuthDisable, func() request { return &pb.AuthDisableRequest{} })),
		m("AuthStatus", AuthAnybody, s.serveAuthStatus),
		m("Authenticate", AuthAnybody, s.serveAuthenticate),
		m("UserAdd", AuthHandler, s.serveUserAdd),
		m("UserGet", AuthHandler, s.serveUserGet),
		m("UserList", AuthHandler, s.serveUserList),
		m("UserDelete", AuthHandler, change(engine.OpUserDelete, func() request { return &pb.AuthUserDeleteRequest{} })),
		m("UserChangePassword", AuthHandler, s.serveChangePassword),
		m("UserGrantRole", AuthHandler, change(engine.OpUserGrantRole, func() request { return &pb.AuthUserGrantRoleRequest{} })),
		m("UserRevokeRole", AuthHandler, change(engine.OpUserRevokeRole, func() request { return &pb.AuthUserRevokeRoleRequest{} })),
		m("RoleAdd", AuthHandler, change(engine.OpRoleAdd, func() request { return &pb.AuthRoleAddRequest{} })),
		m("RoleGet", AuthHandler, s.serveRoleGet),
		m("RoleList", AuthHandler, s.serveRoleList),
		m("RoleDelete", AuthHandler, change(engine.OpRoleDelete, func() request { return &pb.AuthRoleDeleteRequest{} })),
		m("RoleGrantPermission", AuthHandler, change(engine.OpRoleGrant, func() request { return &pb.AuthRoleGrantPermissionRequest{} })),
		m("RoleRevokePermission", AuthHandler, change(engine.OpRoleRevoke, func() request { return &pb.AuthRoleRevokePermissionRequest{} })),
	}
}

// change is the handler of a request that becomes an operation as it is.
func change(kind engine.OpKind, empty func() request) Handler {
	return func(c *Call) {
		if err := decode(&c.Req, empty()); err != nil {
			c.Fail(err)
			return
		}
		c.proposeAs(kind, c.Req)
	}
}

// serveAuthStatus asks for no right, but a token that is wrong is refused.
func (s *Server) serveAuthStatus(c *Call) {
	c.askAuth(&pb.AuthStatusRequest{}, func(auth.Identity) (message, error) {
		on, revision := s.cfg.Auth.Status()
		return &pb.AuthStatusResponse{Enabled: on, AuthRevision: revision}, nil
	})
}

// serveUserGet is for administrators, and for everybody about themselves.
func (s *Server) serveUserGet(c *Call) {
	r := &pb.AuthUserGetRequest{}
	c.askAuth(r, func(id auth.Identity) (message, error) {
		if err := s.cfg.Auth.Admin(id); err != nil && r.Name != id.User {
			return nil, err
		}
		roles, err := s.cfg.Auth.UserRoles(r.Name)
		return &pb.AuthUserGetResponse{Roles: roles}, err
	})
}

// serveRoleGet is for administrators, and for everybody about their own roles.
func (s *Server) serveRoleGet(c *Call) {
	r := &pb.AuthRoleGetRequest{}
	c.askAuth(r, func(id auth.Identity) (message, error) {
		if err := s.cfg.Auth.Admin(id); err != nil && !s.cfg.Auth.HasRole(id.User, r.Role) {
			return nil, err
		}
		perms, err := s.cfg.Auth.RolePermissions(r.Role)
		return &pb.AuthRoleGetResponse{Perm: perms}, err
	})
}

func (s *Server) serveUserList(c *Call) {
	c.askAuth(&pb.AuthUserListRequest{}, func(id auth.Identity) (message, error) {
		return &pb.AuthUserListResponse{Users: s.cfg.Auth.UserNames()}, s.cfg.Auth.Admin(id)
	})
}

func (s *Server) serveRoleList(c *Call) {
	c.askAuth(&pb.AuthRoleListRequest{}, func(id auth.Identity) (message, error) {
		return &pb.AuthRoleListResponse{Roles: s.cfg.Auth.RoleNames()}, s.cfg.Auth.Admin(id)
	})
}

// askAuth answers a question about the auth store. etcd sends these through the
// log; a linearizable read tells the same.
func (c *Call) askAuth(r request, answer func(auth.Identity) (message, error)) {
	if err := decode(&c.Req, r); err != nil {
		c.Fail(err)
		return
	}
	c.linearize(func(c *Call) {
		id, err := c.identity()
		if err != nil {
			c.Fail(err)
			return
		}
		resp, err := answer(id)
		if err != nil {
			c.Fail(err)
			return
		}
		c.finishMessage(resp, c.srv.cfg.KV.Revision())
	})
}

// serveUserAdd hashes the password before the request goes into the log. Whoever
// may not add users is refused before that.
func (s *Server) serveUserAdd(c *Call) {
	r := &pb.AuthUserAddRequest{}
	if err := decode(&c.Req, r); err != nil {
		c.Fail(err)
		return
	}
	password := r.Password
	r.Password, r.HashedPassword = "", ""
	if r.Options.GetNoPassword() {
		c.proposeMessage(engine.OpUserAdd, r)
		return
	}
	c.proposeHashed(password, func(hash string) (engine.OpKind, request) {
		r.HashedPassword = hash
		return engine.OpUserAdd, r
	})
}

// serveChangePassword does the same; a hash that the client has made passes if
// it sends no password, as in etcd.
func (s *Server) serveChangePassword(c *Call) {
	r := &pb.AuthUserChangePasswordRequest{}
	if err := decode(&c.Req, r); err != nil {
		c.Fail(err)
		return
	}
	password := r.Password
	r.Password = ""
	if password == "" {
		c.proposeMessage(engine.OpUserChangePassword, r)
		return
	}
	c.proposeHashed(password, func(hash string) (engine.OpKind, request) {
		r.HashedPassword = hash
		return engine.OpUserChangePassword, r
	})
}

// proposeHashed proposes what op makes of the hash of a password.
func (c *Call) proposeHashed(password string, op func(hash string) (engine.OpKind, request)) {
	if err := checkPassword(password); err != nil {
		c.Fail(err)
		return
	}
	c.linearize(func(c *Call) {
		if !c.require(AuthRoot) {
			return
		}
		hash, err := "", errNotHashed
		c.offload(func() { hash, err = c.srv.passwords.hash(password) }, func(c *Call) {
			if err != nil {
				c.Fail(err)
				return
			}
			c.proposeMessage(op(hash))
		})
	})
}

// proposeMessage proposes a request that is not as the client sent it.
func (c *Call) proposeMessage(kind engine.OpKind, r request) {
	b, err := r.MarshalVT()
	if err != nil {
		c.Fail(err)
		return
	}
	c.proposeAs(kind, b)
}

// serveAuthenticate checks a password against the newest state and hands out a
// token. bcrypt and signing run on the password workers.
func (s *Server) serveAuthenticate(c *Call) {
	r := &pb.AuthenticateRequest{}
	if err := decode(&c.Req, r); err != nil {
		c.Fail(err)
		return
	}
	l := &logIn{user: r.Name, password: r.Password}
	c.linearize(l.check)
}

// logIn is one Authenticate: check the password, hand out a token, and do it all
// again if the password has changed meanwhile. etcd does it again whenever the
// revision has moved, so that nobody gets in while many users are being made.
type logIn struct {
	user, password string

	hash  []byte // that the password was compared with
	good  bool
	token string // of a kind that needs no log
	err   error
}

// still returns the revision as of which the hash is the user's; false if it is
// not any more.
func (l *logIn) still(s *auth.Store) (revision uint64, ok bool) {
	hash, revision, err := s.Password(l.user)
	return revision, err == nil && bytes.Equal(hash, l.hash)
}

func (l *logIn) check(c *Call) {
	s := c.srv
	hash, _, err := s.cfg.Auth.Password(l.user)
	if err != nil {
		if !errors.Is(err, auth.ErrNotEnabled) {
			s.cfg.Logger.Warn("invalid authentication was requested", zap.String("user", l.user), zap.Error(err))
		}
		c.Fail(err)
		return
	}
	l.hash = hash
	c.offload(func() {
		if l.good = matches(hash, l.password); !l.good || s.cfg.Tokens.Logged() {
			return
		}
		if revision, ok := l.still(s.cfg.Auth); ok {
			l.token, l.err = s.cfg.Tokens.Sign(l.user, revision)
		}
	}, l.handOut)
}

func (l *logIn) handOut(c *Call) {
	s := c.srv
	switch {
	case !l.good:
		s.cfg.Logger.Warn("invalid authentication was requested", zap.String("user", l.user), zap.Error(auth.ErrAuthFailed))
		c.Fail(auth.ErrAuthFailed)
	case l.err != nil:
		c.Fail(l.err)
	case s.cfg.Tokens.Logged():
		c.applied = l.issued
		c.propose(engine.OpAuthenticate, engine.AppendAuthenticate(nil, l.user, token.Prefix()))
	case l.token == "":
		l.check(c)
	default:
		c.finishMessage(&pb.AuthenticateResponse{Token: l.token}, s.cfg.KV.Revision())
	}
}

// issued runs on the apply goroutine when the token has been handed out.
func (l *logIn) issued(c *Call, r *engine.Reply) {
	if _, ok := l.still(c.srv.cfg.Auth); ok {
		c.Reply(r.Body, r.Revision)
		return
	}
	c.next = l.check
	c.wake(c)
}
