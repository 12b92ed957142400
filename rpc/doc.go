// Package rpc turns the wire requests of etcd's API into proposals, reads and
// watch cursors, and their outcomes into wire responses and gRPC status codes.
//
// # Layers
//
// A service (one file each: kv.go, watch.go, lease.go, cluster.go,
// maintenance.go, auth.go) takes a request's raw bytes, validates them, calls
// the parts below and completes with raw response bytes. It never sees a frame,
// a stream of a particular library or a goroutine that waits.
//
// The lock and election services (lock.go, election.go, observe.go, line.go) are
// made of the others: they call the server's own methods in the client's name
// (Invoke, localstream.go) and do wait, each on its call's goroutine.
//
// A transport carries the bytes. Today that is grpc-go (grpc.go, codec.go);
// http.go serves the HTTP endpoints that share the client port. Frontend
// (frontend.go, sniff.go) tells the connections of one port apart, with TLS and
// without; access.go decides which HTTP requests are served. The JSON API (package
// gateway) is a gRPC client in this process (loopback.go). A transport may be
// replaced without touching a service.
//
// Metrics (metrics.go, callmetrics.go) are read from what is counted anyway;
// docs/metrics.md says what each means.
//
// # Terms
//
//   - Method: one row of the table that New builds: a name and its handler.
//   - Call: one unary request in flight. Exactly one party ends it (claims it):
//     the service, or the watchdog because the request timed out or the client
//     went away.
//   - Session: the service's side of one stream. The transport feeds it with
//     Recv and pulls messages out with Next after the session called Wake.
//   - Identity: on whose behalf a call or stream is served (identity.go), nobody
//     while authentication is off. Operations of clients go into the log with
//     it and are checked when they are applied; reads are checked here, before
//     and after. Method.Auth says what a method's clients have to be.
//   - Body: a response message without its header field. The header (field 1 of
//     every response) is put in front by Call.Finish.
//
// # Ownership and life of a Call
//
// Calls are pooled and counted: the transport holds one reference, whoever
// will call back later (raft for a proposal or a read, the watchdog) another.
// A Call goes back to the pool when the last one lets go, so that a late
// callback of an abandoned request never meets the next user of the object.
//
// Call.Req is the transport's memory, valid until the transport releases the
// call; services copy what they keep. Call's output buffer belongs to whoever
// claimed the call.
//
// # Bounds
//
//   - A request above Config.MaxRequestBytes is refused by the service with
//     etcd's text; above that plus 512 KiB the transport refuses the message.
//   - A call's header has at most 256 KiB (grpc.go).
//   - A call ends after Config.RequestTimeout, whatever happens below; Lock and
//     Campaign wait as long as their client does.
//   - Passwords are hashed and compared by a quarter of the cores, with two
//     seconds of work waiting at most (password.go).
//   - What a stream has to send is pulled, so a slow client holds a cursor in
//     package watchfanout and no queue here.
//
// # Failure
//
// Errors become a Status by the one table in errors.go, by text: clients match
// the texts of etcd. An error that is not in the table is Unknown.
package rpc
