package engine

// Publisher gets the events of committed revisions, in order, once per log
// entry. It is called on the apply goroutine and must not block. The slices of
// an event are immutable and may be kept.
type Publisher interface {
	// Publish delivers the events of whole revisions; rev is the newest
	// revision, also when there are no events.
	Publish(events []Event, rev int64)
	// Restored says that a snapshot has brought everything up to revision rev,
	// of which the revisions since the last Publish were never published.
	Restored(rev int64)
	// WantsPrev reports whether anyone asks for previous values; without it
	// Event.Prev stays nil.
	WantsPrev() bool
}

// Event is one change.
type Event struct {
	Main    int64
	Sub     int32
	Delete  bool
	Created bool
	Key     []byte
	KV      []byte // wire bytes of mvccpb.KeyValue
	Prev    []byte // wire bytes of the value before, nil if there was none or nobody asked
}
