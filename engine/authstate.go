package engine

import "quire/engine/auth"

// AuthState is everything that authentication replicates.
type AuthState = auth.State

// AuthState returns the applied users, roles and switch; they must not be changed.
func (e *Engine) AuthState() AuthState {
	st := e.auth.State()
	st.Sort()
	return st
}

// Auth is the store of users and roles, for checks; only operations change it.
func (e *Engine) Auth() *auth.Store { return e.auth }

// AuthListener is told of applied changes on the apply goroutine and must not
// block. What it keeps is not replicated state.
type AuthListener interface {
	// Changed says that users, roles or the switch have changed.
	Changed()
	// Issued says that a user has got a token with the operation at a log index.
	Issued(index uint64, user, token string)
	// Revoked says that the tokens of a user are void; "" means everybody's.
	Revoked(user string)
}
