package auth

import (
	"encoding/base64"
	"slices"

	"quire/api/authpb"
	pb "quire/api/etcdserverpb"
)

// AddUser adds a user whose password comes hashed.
func (s *Store) AddUser(r *pb.AuthUserAddRequest) error {
	if r.Name == "" {
		return ErrUserEmpty
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.users[r.Name] != nil {
		return ErrUserAlreadyExist
	}
	u := &authpb.User{Name: []byte(r.Name), Options: r.Options}
	if u.Options == nil {
		u.Options = &authpb.UserAddOptions{}
	}
	if !u.Options.NoPassword {
		var err error
		if u.Password, err = decodeHash(r.HashedPassword); err != nil {
			return err
		}
	}
	s.putSecretLocked(u)
	return nil
}

// decodeHash returns the hash that a request carries as text.
func decodeHash(text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, ErrNoPasswordUser // etcd's answer to this
	}
	return b, nil
}

// putSecretLocked stores a user whose password was set, and counts the change.
func (s *Store) putSecretLocked(u *authpb.User) {
	s.mu.users[string(u.Name)] = &user{User: u, secretSince: s.Revision() + 1}
	s.changedLocked()
}

// putRolesLocked stores a user with other roles, without counting the change.
func (s *Store) putRolesLocked(old *user, roles []string) {
	u := &authpb.User{Name: old.Name, Password: old.Password, Options: old.Options, Roles: roles}
	s.mu.users[string(u.Name)] = &user{User: u, secretSince: old.secretSince}
}

// DeleteUser removes a user; root stays while the store is enabled.
func (s *Store) DeleteUser(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Enabled() && name == root {
		return ErrInvalidManagement
	}
	if s.mu.users[name] == nil {
		return ErrUserNotFound
	}
	delete(s.mu.users, name)
	s.changedLocked()
	return nil
}

// ChangePassword replaces the hash of a user who has a password; for others it
// only counts as a change, as in etcd.
func (s *Store) ChangePassword(r *pb.AuthUserChangePasswordRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.mu.users[r.Name]
	if old == nil {
		return ErrUserNotFound
	}
	u := &authpb.User{Name: old.Name, Roles: old.Roles, Options: old.Options}
	if !old.GetOptions().GetNoPassword() {
		var err error
		if u.Password, err = decodeHash(r.HashedPassword); err != nil {
			return err
		}
	}
	s.putSecretLocked(u)
	return nil
}

// GrantRole gives a user a role. The role root need not exist. A role that the
// user has is no change.
func (s *Store) GrantRole(name, role string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.mu.users[name]
	if u == nil {
		return ErrUserNotFound
	}
	if role != root && s.mu.roles[role] == nil {
		return ErrRoleNotFound
	}
	at, found := slices.BinarySearch(u.Roles, role)
	if found {
		return nil
	}
	s.putRolesLocked(u, slices.Insert(slices.Clone(u.Roles), at, role))
	s.changedLocked()
	return nil
}

// RevokeRole takes a role from a user; root keeps root while the store is enabled.
func (s *Store) RevokeRole(name, role string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Enabled() && name == root && role == root {
		return ErrInvalidManagement
	}
	u := s.mu.users[name]
	if u == nil {
		return ErrUserNotFound
	}
	roles := without(u.Roles, role)
	if len(roles) == len(u.Roles) {
		return ErrRoleNotGranted
	}
	s.putRolesLocked(u, roles)
	s.changedLocked()
	return nil
}

// without returns a copy of roles that lacks one.
func without(roles []string, role string) []string {
	return slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return r == role })
}

// UserRoles returns the roles of a user.
func (s *Store) UserRoles(name string) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	u := s.mu.users[name]
	if u == nil {
		return nil, ErrUserNotFound
	}
	return u.Roles, nil
}

// UserNames lists the users by name.
func (s *Store) UserNames() []string {
	s.mu.RLock()
	names := make([]string, 0, len(s.mu.users))
	for name := range s.mu.users {
		names = append(names, name)
	}
	s.mu.RUnlock()
	slices.Sort(names)
	return names
}

// Password returns the hash that a password has to match, and the revision as
// of which that is so.
func (s *Store) Password(name string) (hash []byte, revision uint64, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.Enabled() {
		return nil, 0, ErrNotEnabled
	}
	u := s.mu.users[name]
	switch {
	case u == nil:
		return nil, 0, ErrAuthFailed
	case u.GetOptions().GetNoPassword():
		return nil, 0, ErrNoPasswordUser
	}
	return u.User.Password, s.Revision(), nil
}

// MayLogIn refuses a token for a user who cannot have logged in: what the
// password was checked against may have changed since.
func (s *Store) MayLogIn(name string) error {
	_, _, err := s.Password(name)
	if err == ErrNoPasswordUser {
		return ErrAuthFailed
	}
	return err
}
