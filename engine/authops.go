package engine

import (
	"strconv"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
)

// runAuth executes the operations on users, roles and the switch. All but the
// one that hands a token out need the role root while the store is enabled.
func (a *applier) runAuth(kind OpKind, body []byte) error {
	if kind == OpAuthenticate {
		return a.authenticate(body)
	}
	if err := a.e.auth.Admin(a.as); err != nil {
		return err
	}
	before, on := a.e.auth.Revision(), a.e.auth.Enabled()
	revoked, err := a.changeAuth(kind, body)
	if err != nil {
		return err
	}
	now, enabled := a.e.auth.Revision(), a.e.auth.Enabled()
	if now == before && enabled == on {
		return nil
	}
	a.e.log.Info("changed users, roles or permissions", zap.Uint8("operation", uint8(kind)), zap.String("by-user", a.as.User),
		zap.Bool("auth-enabled", enabled), zap.Uint64("auth-revision", now))
	l := a.e.opts.AuthListener
	if l == nil {
		return nil
	}
	switch {
	case on && !enabled:
		l.Revoked("")
	case revoked != "":
		l.Revoked(revoked)
	}
	l.Changed()
	return nil
}

// changeAuth makes one change; the tokens of user revoked are void after it.
func (a *applier) changeAuth(kind OpKind, body []byte) (revoked string, err error) {
	s := a.e.auth
	switch kind {
	case OpAuthEnable:
		return "", s.Enable()
	case OpAuthDisable:
		s.Disable()
		return "", nil
	case OpUserAdd:
		var r pb.AuthUserAddRequest
		if err := r.UnmarshalVT(body); err != nil {
			return "", err
		}
		return "", s.AddUser(&r)
	case OpUserDelete:
		var r pb.AuthUserDeleteRequest
		if err := r.UnmarshalVT(body); err != nil {
			return "", err
		}
		return r.Name, s.DeleteUser(r.Name)
	case OpUserChangePassword:
		var r pb.AuthUserChangePasswordRequest
		if err := r.UnmarshalVT(body); err != nil {
			return "", err
		}
		return r.Name, s.ChangePassword(&r)
	case OpUserGrantRole:
		var r pb.AuthUserGrantRoleRequest
		if err := r.UnmarshalVT(body); err != nil {
			return "", err
		}
		return "", s.GrantRole(r.User, r.Role)
	case OpUserRevokeRole:
		var r pb.AuthUserRevokeRoleRequest
		if err := r.UnmarshalVT(body); err != nil {
			return "", err
		}
		return "", s.RevokeRole(r.Name, r.Role)
	}
	return "", a.changeRole(kind, body)
}

func (a *applier) changeRole(kind OpKind, body []byte) error {
	s := a.e.auth
	switch kind {
	case OpRoleAdd:
		var r pb.AuthRoleAddRequest
		if err := r.UnmarshalVT(body); err != nil {
			return err
		}
		return s.AddRole(r.Name)
	case OpRoleDelete:
		var r pb.AuthRoleDeleteRequest
		if err := r.UnmarshalVT(body); err != nil {
			return err
		}
		return s.DeleteRole(r.Role)
	case OpRoleGrant:
		var r pb.AuthRoleGrantPermissionRequest
		if err := r.UnmarshalVT(body); err != nil {
			return err
		}
		return s.GrantPermission(r.Name, r.Perm)
	default: // OpRoleRevoke
		var r pb.AuthRoleRevokePermissionRequest
		if err := r.UnmarshalVT(body); err != nil {
			return err
		}
		return s.RevokePermission(r.Role, r.Key, r.RangeEnd)
	}
}

// authenticate gives a user a token that all members know from here on. The
// password was checked by the member that proposed it.
func (a *applier) authenticate(body []byte) error {
	name, prefix, err := cutName(body)
	if err != nil {
		return err
	}
	if err := a.e.auth.MayLogIn(string(name)); err != nil {
		return err
	}
	token := strconv.AppendUint(append(append([]byte(nil), prefix...), '.'), a.index, 10)
	if l := a.e.opts.AuthListener; l != nil {
		l.Issued(a.index, string(name), string(token))
	}
	a.body = appendMessage(a.body, 2<<3|2, token)
	return nil
}
