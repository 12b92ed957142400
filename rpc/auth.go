package rpc

import pb "quire/api/etcdserverpb"

const authService = "etcdserverpb.Auth"

// authMethods answers as a server whose authentication is switched off and
// cannot be switched on yet.
func (s *Server) authMethods() []*Method {
	methods := []*Method{
		{Service: authService, Name: "AuthStatus", Unary: s.serveAuthStatus},
		{Service: authService, Name: "Authenticate", Unary: serveAuthenticate},
	}
	for _, name := range []string{
		"AuthEnable", "AuthDisable",
		"UserAdd", "UserGet", "UserList", "UserDelete", "UserChangePassword", "UserGrantRole", "UserRevokeRole",
		"RoleAdd", "RoleGet", "RoleList", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission",
	} {
		methods = append(methods, &Method{Service: authService, Name: name, Unary: serveUnimplemented})
	}
	return methods
}

func (s *Server) serveAuthStatus(c *Call) {
	c.finishMessage(&pb.AuthStatusResponse{AuthRevision: 1}, s.cfg.KV.Revision())
}

// serveAuthenticate is what a client with credentials tries first; the text
// tells it that it may go on without.
func serveAuthenticate(c *Call) { c.Fail(errAuthNotEnabled) }

func serveUnimplemented(c *Call) { c.Fail(unimplemented(c.Method.Service, c.Method.Name)) }
