// Package client owns the connections to the etcd endpoints under load and the
// raw calls made over them.
//
// A load generator must cost less than what it measures, so the hot calls go
// past the generated stubs: a request is encoded once into a buffer that the
// caller reuses, and a reply is read from its wire bytes by the few scanners in
// scan.go, which look only at the fields a workload has to know. Everything
// else (status, lease calls, compaction) uses etcd's generated messages through
// the same connections. On the wire both are what any grpc-go client sends.
//
// A connection is grpc-go's, which sends what real clients send, or that of
// package light, which costs a fraction.
//
// Terms: a Pool is the set of connections of one trial; connection i goes to
// endpoint i modulo the number of endpoints. A Reply reads one message.
//
// Ownership: a Pool is safe for concurrent use. A request buffer belongs to
// the caller again when Call returns without an error; after an error it may
// still be in a send queue and must be dropped.
//
// Failures are the gRPC status of the call, or an *ErrReply naming what in the
// bytes could not be read.
package client
