// Package loop drives steps at full speed or at a constant rate and records
// how long each took.
//
// A step is one operation of one worker. In a closed loop every worker starts
// its next step when the last has ended: that measures throughput, and its
// latencies say little, because a slow server is asked less often. In an open
// loop operations are due at a constant rate whatever the server does, and the
// latency of an operation is counted from the moment at which it was due, not
// from the moment at which a worker was free to start it. A server that stands
// still for a second is thus charged for every operation that was due in that
// second (the correction for "coordinated omission").
//
// Terms: the window is the measured part of a run, after the warm-up. In a
// closed loop an operation belongs to the window if it ends in it. In an open
// loop its latency belongs to the window if it was due in it, however late it
// ends, and it counts for the throughput if it ends in it.
//
// Ownership: each worker is one goroutine; workers share a few recorders, each
// behind its own mutex. The pacer of an open loop is one goroutine. Run starts
// and awaits all of them.
//
// Bounds: a run ends with its window plus Grace, after which the context of the
// steps is cancelled; operations that had to be cancelled count as errors and
// their latency up to then is recorded. More than MaxErrors errors end a run.
package loop
