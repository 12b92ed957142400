package engine

// Reply is the outcome of one applied operation.
type Reply struct {
	// Revision is what the response header must carry.
	Revision int64
	// Body is the wire encoding of the response message without its header
	// field. It is valid only during the Applied call.
	Body []byte
	// Err is nil or one of this package's errors.
	Err error
}

// Waiter is told how an operation ended: exactly one of the two, once. Both are
// called on the apply goroutine (Applied) or on raft's (Dropped) and must not
// block.
type Waiter interface {
	Applied(*Reply)
	// Dropped says that the operation may or may not take effect later: the
	// leader changed, or the member stops.
	Dropped(err error)
}
