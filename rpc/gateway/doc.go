// Package gateway serves etcd's JSON API: POST requests under /v3/ whose body is
// a request message in protobuf's JSON form (base64 for bytes, strings for
// 64-bit integers, names for enums), answered in the same form. The library
// grpc-gateway does the translation, with the options that etcd sets; this
// package says which path is which method (routes.go), carries the calls and
// bounds what comes in.
//
// It knows the API's descriptors and a gRPC connection to the server. What the
// methods do, who may call them and how a connection comes about it does not
// know.
//
// # Terms
//
//   - Route: a path and the gRPC method behind it.
//   - Chunk: one message of a stream's answer, a line {"result": …}. An error
//     ends the stream as {"error": …}.
//
// # Bounds
//
//   - A message of a request has at most Options.MaxMessageBytes as JSON. A
//     body is read as it is decoded, never as a whole beyond that.
//   - The body of a request that is not a stream has to arrive within
//     Options.BodyWait.
//   - A websocket message is a message of a request. Nothing is queued: each
//     direction has one message in hand and waits for the other side.
//
// # Failure
//
// Errors are JSON objects {"code", "message"} with the HTTP status that belongs
// to the gRPC code, as the library maps them.
package gateway
