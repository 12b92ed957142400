// Package token keeps and checks the tokens by which clients say who they are
// after they have shown their password.
//
// # Kinds
//
// A simple token is random letters, a dot and the log index of the operation
// that gave it out. It means something only because every member has applied
// that operation and notes it in a Table, with a deadline that every use
// renews. It is void when its time is over, when the password is changed, the
// user deleted or authentication switched off, and after a restart.
//
// A JWT names the user and the revision of the auth store, and is signed; every
// member with the key can check it, nothing is noted. It is void when its time
// is over, and useless for reads and writes as soon as the store's revision has
// moved on.
//
// The third kind hands out nothing and believes nothing.
//
// # Refuses to know
//
// Passwords, users and rights, the log, the wire. Who is told by whom what was
// applied is the caller's business.
//
// # Bounds
//
// A Table holds MaxTokens tokens. Past that the oldest gives way: its client
// logs in again. A JWT that was verified is remembered, so that the signature
// is checked once per token and not once per request; 1,024 of them.
package token
