package watchfanout

import "time"

// Options of a Hub. A zero field takes its default.
type Options struct {
	// Header appends the body of a ResponseHeader (cluster_id, member_id,
	// revision, raft_term). It is called from any goroutine, under locks, and
	// must neither block nor call back. Default: the revision alone.
	Header func(dst []byte, revision int64) []byte
	// ProgressInterval is the time between progress notifications of an idle
	// watcher that asked for them; a stream adds a random part of up to a
	// tenth, so that clients that came together do not stay together.
	// Default 10 minutes, at least 100 ms.
	ProgressInterval time.Duration
	// FragmentBytes is the size from which on a response is split for a
	// watcher that asked for fragments: max-request-bytes + 512 KiB, as in
	// etcd. Default 2 MiB.
	FragmentBytes int
	// ResponseBytes is the size after which no further revision is put into a
	// response; one revision is never split by it. Default 512 KiB.
	ResponseBytes int
	// StreamPendingBytes bounds what waits in one stream's queue. Past it the
	// stream's cursors leave the queue and read history when the client reads
	// again. Default 256 KiB.
	StreamPendingBytes int
	// TotalPendingBytes bounds what all queues keep alive, shared bytes
	// counted once. Past it the queues that hold the oldest events are
	// dropped, which makes their cursors read history. Default 32 MiB.
	TotalPendingBytes int64
	// ChunkBytes is how much history is read at a time. Default 256 KiB.
	ChunkBytes int
	// Workers is the number of goroutines that read history. Default 2.
	Workers int
	// MaxControls bounds a stream's unread answers to create and cancel
	// requests; past it Create and Cancel say ErrBusy. Default 1024.
	MaxControls int
	// Inline starts no goroutine and no timer: the owner calls RunPending, and
	// there are no interval progress notifications. For simulations.
	Inline bool
	// OnHistoryError is told of a failed history read other than a compacted
	// one. The watchers that needed it are canceled with the error's text.
	OnHistoryError func(error)
}

// minProgressInterval is etcd's.
const minProgressInterval = 100 * time.Millisecond

func (o Options) withDefaults() Options {
	if o.Header == nil {
		o.Header = revisionHeader
	}
	if o.ProgressInterval <= 0 {
		o.ProgressInterval = 10 * time.Minute
	}
	o.ProgressInterval = max(o.ProgressInterval, minProgressInterval)
	o.FragmentBytes = orDefault(o.FragmentBytes, 2<<20)
	o.ResponseBytes = orDefault(o.ResponseBytes, 512<<10)
	o.StreamPendingBytes = orDefault(o.StreamPendingBytes, 256<<10)
	o.ChunkBytes = orDefault(o.ChunkBytes, 256<<10)
	o.Workers = orDefault(o.Workers, 2)
	o.MaxControls = orDefault(o.MaxControls, 1024)
	if o.TotalPendingBytes <= 0 {
		o.TotalPendingBytes = 32 << 20
	}
	return o
}

func orDefault(v, def int) int {
	if v <= 0 {
		return def
	}
	return v
}
