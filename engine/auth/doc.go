// Package auth is the replicated store of users, roles and permissions, and
// answers whether somebody may do something.
//
// It is a pure data structure: no clock, no passwords (only their hashes, which
// the proposing member makes), no tokens, no files. Every change is an operation
// of the log, so every member computes the same.
//
// # Terms
//
//   - user: a name, the hash of a password or the mark that there is none, and
//     the names of the roles granted.
//   - role: a name and permissions, each to read, to write or both, on one key
//     or a range of keys.
//   - root: the role that may everything, whatever permissions it has. The user
//     of this name is special only in that it must exist, and have the role,
//     while the store is enabled.
//   - revision: counts the changes; 1 before the first. It lets one notice that
//     permissions were checked against an earlier state.
//   - identity: on whose behalf something is done, and the revision at which
//     that was established. The zero identity is nobody.
//   - access: what an identity may do, as of one moment.
//
// # Ownership
//
// One goroutine at a time changes the store (the engine's apply). Everybody may
// read: Enabled and Revision are atomics, everything else takes a read lock for
// a few instructions. Users and roles that were handed out are never changed,
// only replaced.
//
// A user's permissions are merged into sorted ranges on the first check after a
// change of roles, so that a change costs the apply goroutine nothing per user
// and a check costs one binary search.
package auth
