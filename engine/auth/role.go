package auth

import (
	"bytes"
	"slices"
	"sort"

	"quire/api/authpb"
)

// everything is what RoleGet shows as the permission of root.
var everything = authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte{}, RangeEnd: []byte{0}}

// AddRole adds a role without permissions.
func (s *Store) AddRole(name string) error {
	if name == "" {
		return ErrRoleEmpty
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.roles[name] != nil {
		return ErrRoleAlreadyExist
	}
	s.putRoleLocked(&authpb.Role{Name: []byte(name)})
	return nil
}

// putRoleLocked stores a role and counts the change.
func (s *Store) putRoleLocked(r *authpb.Role) {
	s.mu.roles[string(r.Name)] = r
	s.mu.epoch++
	s.changedLocked()
}

// DeleteRole removes a role and takes it from all users; root stays while the
// store is enabled.
func (s *Store) DeleteRole(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Enabled() && name == root {
		return ErrInvalidManagement
	}
	if s.mu.roles[name] == nil {
		return ErrRoleNotFound
	}
	delete(s.mu.roles, name)
	for _, u := range s.mu.users {
		if slices.Contains(u.Roles, name) {
			s.putRolesLocked(u, without(u.Roles, name))
		}
	}
	s.mu.epoch++
	s.changedLocked()
	return nil
}

// RolePermissions returns the permissions of a role.
func (s *Store) RolePermissions(name string) ([]*authpb.Permission, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.mu.roles[name]
	switch {
	case r == nil:
		return nil, ErrRoleNotFound
	case name == root:
		return []*authpb.Permission{&everything}, nil
	}
	return r.KeyPermission, nil
}

// RoleNames lists the roles by name.
func (s *Store) RoleNames() []string {
	s.mu.RLock()
	names := make([]string, 0, len(s.mu.roles))
	for name := range s.mu.roles {
		names = append(names, name)
	}
	s.mu.RUnlock()
	slices.Sort(names)
	return names
}

// byKey orders permissions by their first key alone. Where several have the same
// one, etcd's answers show the order in which package sort leaves them; so it is
// the same algorithm here.
type byKey []*authpb.Permission

func (p byKey) Len() int           { return len(p) }
func (p byKey) Less(i, j int) bool { return bytes.Compare(p[i].Key, p[j].Key) < 0 }
func (p byKey) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }

// GrantPermission adds a permission to a role or changes its kind. As in etcd
// only the first of several permissions with the same first key is looked at:
// for another one a second permission on the same range is added.
func (s *Store) GrantPermission(name string, perm *authpb.Permission) error {
	if perm == nil {
		return ErrPermissionNotGiven
	}
	if !validRange(perm.Key, perm.RangeEnd) {
		return ErrInvalidManagement
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.mu.roles[name]
	if old == nil {
		return ErrRoleNotFound
	}
	perms := slices.Clone(old.KeyPermission)
	at := sort.Search(len(perms), func(i int) bool { return bytes.Compare(perms[i].Key, perm.Key) >= 0 })
	added := &authpb.Permission{PermType: perm.PermType, Key: perm.Key, RangeEnd: perm.RangeEnd}
	if at < len(perms) && sameRange(perms[at], perm.Key, perm.RangeEnd) {
		perms[at] = added
	} else {
		perms = append(perms, added)
		sort.Sort(byKey(perms))
	}
	s.putRoleLocked(&authpb.Role{Name: old.Name, KeyPermission: perms})
	return nil
}

// RevokePermission takes the permissions on a range from a role.
func (s *Store) RevokePermission(name string, key, rangeEnd []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.mu.roles[name]
	if old == nil {
		return ErrRoleNotFound
	}
	perms := slices.DeleteFunc(slices.Clone(old.KeyPermission), func(p *authpb.Permission) bool { return sameRange(p, key, rangeEnd) })
	if len(perms) == len(old.KeyPermission) {
		return ErrPermissionNotGranted
	}
	s.putRoleLocked(&authpb.Role{Name: old.Name, KeyPermission: perms})
	return nil
}

func sameRange(p *authpb.Permission, key, rangeEnd []byte) bool {
	return bytes.Equal(p.Key, key) && bytes.Equal(p.RangeEnd, rangeEnd)
}

// validRange accepts one key, a range that is not empty, and one without end.
func validRange(key, rangeEnd []byte) bool {
	switch {
	case len(key) == 0:
		return false
	case len(rangeEnd) == 0, openEnded(rangeEnd):
		return true
	}
	return bytes.Compare(key, rangeEnd) < 0
}
