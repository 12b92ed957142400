// Package certs owns the TLS side of a listener: it reads certificate, key, CA
// and revocation files, keeps what they said in force, and takes connections
// through their handshake.
//
// It refuses to know what is served on a connection, and it has no flags: Config
// says which files and rules there are (etcd's, for clients and for peers alike).
//
// # Terms
//
//   - Material: the parsed content of all files as of one moment, immutable, with
//     the tls.Config made of it. A Store publishes one at a time.
//   - Stamp: what tells a changed file from an unchanged one without reading it:
//     device, inode, size, times of modification and of change.
//   - Gate: the bounded set of connections that are in their handshake.
//
// # Reload
//
// A Store looks at the stamps when a handshake asks for the configuration or
// metrics are read, at most once a second, on one goroutine; others go on with
// the material in force. So nothing runs while nobody connects, a replaced file
// counts for every connection that begins a second later, and there is no
// watcher that can lose an event (a mounted secret is replaced by moving a
// symbolic link above it, which a watch on the file does not see).
//
// All files are read together. If any of them cannot be read or parsed, or
// certificate and key do not belong together (as when only one of them has been
// replaced yet), everything stays as it was; the fault is logged once and counted.
//
// A new material has a new tls.Config and with it new session ticket keys: a
// session of the time before a reload is never resumed, so that a certificate
// that is no longer trusted cannot come in by a ticket. What is checked beyond
// the chain (revocation, names) is checked for resumed sessions as well.
//
// # Handshakes
//
// A handshake has ten seconds. It runs on its own goroutine, never on the one
// that accepts. At most Options.Handshakes are under way; when another one
// comes, the one that has waited longest for its client to send something, if it
// has for a second, makes room. So clients that open connections and stay
// silent cost bounded memory and hold up nobody for longer than that.
//
// A refused connection is logged in etcd's words, at most refusalsPerSecond lines
// a second; the rest is counted.
//
// # Failure
//
// Open fails if any file is missing or broken: a server that would refuse every
// client, or trust more of them than was meant, does not start. After that no
// fault of a file ends anything.
package certs
