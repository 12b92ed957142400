// Package light is a gRPC client over HTTP/2 that costs as little as a load
// generator should: a one-key Range over 10 connections of 10 streams takes it
// less than half of the processor time that grpc-go's client needs (3.8 µs
// against 9.1), so that a fast server can be kept busy from one core.
//
// It does what the benchmark needs and nothing else: one connection, unary
// calls and bidirectional streams, whole messages without compression, no
// retries, no deadlines on the wire (cancelling a context resets the stream).
// What it sends is what grpc-go sends: the same headers, compressed with the
// same dynamic table, and the same frames.
//
// The way of a call: the caller encodes HEADERS and DATA into the connection's
// out buffer under its lock. Whoever finds no flusher at work becomes it, yields
// once so that other callers can add theirs, and writes the buffer with one
// system call. One reader goroutine per connection takes frames apart, appends
// data to the buffer of its stream and wakes the stream's owner when a unary
// call has ended or a stream has something new.
//
// Ownership: Conn.mu guards everything that is written (out buffer, header
// encoder, stream ids, both levels of send windows); Stream.mu guards what has
// arrived. Conn.mu comes before Stream.mu. The reader owns the header decoder.
//
// Bounds: a stream buffers at most its receive window, which is given back only
// when the data has been consumed; the connection's window is given back at
// once, since the streams' windows bound the sum.
//
// Failures: the status that the server sent; Unavailable when the connection is
// gone, which fails every call on it.
package light
