// Package watchfanout ships the engine's events to the watchers of all client
// streams, with etcd 3.7's semantics of the Watch call. It knows ranges,
// revisions and the wire form of WatchResponse; it does not know gRPC, HTTP/2,
// the store or the network.
package watchfanout
