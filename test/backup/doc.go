// Package backup carries data between servers: snapshots of the server under test restored by upstream and by itself,
// upstream's snapshots and data directories taken over, and what happens to a backup that is disturbed.
//
// # Terms
//
//   - picture: everything that a client can see of a server's data: all keys at several revisions, leases, users and
//     roles, alarms, hashes. Two servers with the same data have the same picture.
//   - to restore: to make a data directory of a snapshot, with etcdutl or with the server's own command.
package backup
