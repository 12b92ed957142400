package auth

// Identity is on whose behalf something is done. Known is false for nobody;
// Revision is that of the store when the identity was established, so 0 for
// nobody.
type Identity struct {
	User     string
	Revision uint64
	Known    bool
}

// Access is what an identity may do, as of the moment when it was asked for. An
// error that concerns all of it is told by the first check, for a request that
// touches no key is not checked.
type Access struct {
	all    bool // every check succeeds
	admin  bool // has the role root, whatever else is wrong
	merged *merged
	err    error
}

// Access returns what id may do with keys.
func (s *Store) Access(id Identity) Access {
	if !s.Enabled() {
		return Access{all: true}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	u := s.mu.users[id.User]
	admin := u != nil && u.isRoot()
	switch {
	case !s.Enabled():
		return Access{all: true}
	case id.Revision == 0:
		return Access{admin: admin, err: ErrUserEmpty}
	case id.Revision < s.Revision():
		return Access{admin: admin, err: ErrOldRevision}
	case u == nil:
		return Access{err: ErrPermissionDenied}
	case admin:
		return Access{all: true, admin: true}
	}
	m := u.merged.Load()
	if m == nil || m.epoch != s.mu.epoch {
		m = merge(s.mu.epoch, u.Roles, s.mu.roles)
		u.merged.Store(m)
	}
	return Access{merged: m}
}

// All reports whether every check succeeds.
func (a *Access) All() bool { return a.all }

// AllLeases reports whether the keys of leases need not be checked: as in etcd
// an administrator may do everything with leases, even by an old revision.
func (a *Access) AllLeases() bool { return a.all || a.admin }

// Read checks the right to read a range of keys, as a request names it.
func (a *Access) Read(key, rangeEnd []byte) error {
	if a.all || a.err == nil && a.merged.read.cover(key, rangeEnd) {
		return nil
	}
	return a.denied()
}

// Write checks the right to put or delete a range of keys.
func (a *Access) Write(key, rangeEnd []byte) error {
	if a.all || a.err == nil && a.merged.write.cover(key, rangeEnd) {
		return nil
	}
	return a.denied()
}

func (a *Access) denied() error {
	if a.err != nil {
		return a.err
	}
	return ErrPermissionDenied
}

// Admin checks that id has the role root. As in etcd the revision of the
// identity does not matter here.
func (s *Store) Admin(id Identity) error {
	if !s.Enabled() {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.Enabled() {
		return nil
	}
	if id.User == "" {
		return ErrUserEmpty
	}
	u := s.mu.users[id.User]
	switch {
	case u == nil:
		return ErrUserNotFound
	case !u.isRoot():
		return ErrPermissionDenied
	}
	return nil
}

// HasRole reports whether a user exists and has a role.
func (s *Store) HasRole(name, role string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	u := s.mu.users[name]
	if u == nil {
		return false
	}
	for _, r := range u.Roles {
		if r == role {
			return true
		}
	}
	return false
}

// SecretSince returns the revision at which the user got the present password;
// 0 says that it was before this process, or that there is no such user.
func (s *Store) SecretSince(name string) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if u := s.mu.users[name]; u != nil {
		return u.secretSince
	}
	return 0
}
