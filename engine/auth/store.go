package auth

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"quire/api/authpb"
)

// root is the name of the role that may everything, and of the user that has to
// have it.
const root = "root"

// State is everything that is replicated.
type State struct {
	Enabled bool
	// Revision counts the changes; a store without any has 1.
	Revision uint64
	Users    []*authpb.User // by name
	Roles    []*authpb.Role // by name
}

// Store holds users, roles and the switch. See doc.go for who may call what.
type Store struct {
	// Written with mu held, so that with mu read-locked they do not move.
	enabled  atomic.Bool
	revision atomic.Uint64

	mu struct {
		sync.RWMutex
		users map[string]*user
		roles map[string]*authpb.Role
		epoch uint64 // of the roles: merged permissions of another one are stale
	}
}

// user is never changed but for its cache, only replaced.
type user struct {
	*authpb.User
	// secretSince is the revision at which the password was set, 0 if that was
	// before this process.
	secretSince uint64
	merged      atomic.Pointer[merged]
}

func (u *user) isRoot() bool {
	_, found := slices.BinarySearch(u.Roles, root)
	return found
}

// NewStore returns a store with a state, which it takes over; nil is a fresh
// one.
func NewStore(st *State) *Store {
	s := new(Store)
	s.revision.Store(1)
	s.mu.users = map[string]*user{}
	s.mu.roles = map[string]*authpb.Role{}
	if st != nil {
		s.enabled.Store(st.Enabled)
		s.revision.Store(max(st.Revision, 1))
		for _, u := range st.Users {
			s.mu.users[string(u.Name)] = &user{User: u}
		}
		for _, r := range st.Roles {
			s.mu.roles[string(r.Name)] = r
		}
	}
	return s
}

// Replace takes over the state of a snapshot. Who has another password than before
// got it, as far as anybody can tell, with the last change.
func (s *Store) Replace(st State) {
	next := NewStore(&st)
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, u := range next.mu.users {
		u.secretSince = next.Revision()
		if old := s.mu.users[name]; old != nil && bytes.Equal(old.Password, u.Password) {
			u.secretSince = old.secretSince
		}
	}
	s.mu.users, s.mu.roles = next.mu.users, next.mu.roles
	s.mu.epoch++
	s.enabled.Store(next.Enabled())
	s.revision.Store(next.Revision())
}

// Enabled reports whether requests are checked at all.
func (s *Store) Enabled() bool { return s.enabled.Load() }

// Revision is the number of the present state.
func (s *Store) Revision() uint64 { return s.revision.Load() }

// Status returns the switch and the revision as of one moment.
func (s *Store) Status() (enabled bool, revision uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.Enabled(), s.Revision()
}

// State returns everything, in no order.
func (s *Store) State() State {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := State{Enabled: s.Enabled(), Revision: s.Revision()}
	for _, u := range s.mu.users {
		st.Users = append(st.Users, u.User)
	}
	for _, r := range s.mu.roles {
		st.Roles = append(st.Roles, r)
	}
	return st
}

// Sort orders users and roles by name.
func (st *State) Sort() {
	slices.SortFunc(st.Users, func(a, b *authpb.User) int { return strings.Compare(string(a.Name), string(b.Name)) })
	slices.SortFunc(st.Roles, func(a, b *authpb.Role) int { return strings.Compare(string(a.Name), string(b.Name)) })
}

// Enable switches checks on; the user root has to exist and to have the role
// root. That moves no revision, as in etcd.
func (s *Store) Enable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Enabled() {
		return nil
	}
	u := s.mu.users[root]
	if u == nil {
		return ErrRootUserNotExist
	}
	if !u.isRoot() {
		return ErrRootRoleNotExist
	}
	s.enabled.Store(true)
	return nil
}

// Disable switches checks off.
func (s *Store) Disable() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Enabled() {
		s.enabled.Store(false)
		s.changedLocked()
	}
}

// changedLocked counts a change. It comes last: who sees the new revision sees
// the change too.
func (s *Store) changedLocked() { s.revision.Add(1) }
