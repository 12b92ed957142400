package engine

import "quire/api/authpb"

// AuthState is everything that authentication replicates.
type AuthState struct {
	Enabled bool
	// Revision counts the changes; a store without any has 1.
	Revision uint64
	Users    []*authpb.User // by name
	Roles    []*authpb.Role // by name
}

// AuthState returns the applied users, roles and switch; they must not be changed.
func (e *Engine) AuthState() AuthState {
	e.writer.Lock()
	defer e.writer.Unlock()
	return e.auth
}
