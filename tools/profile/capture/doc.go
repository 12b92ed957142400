// Package capture takes profiles, metrics and system call counts from a running
// server and stores them as they come.
//
// Terms: the window is the time over which CPU, allocations, block and mutex
// are profiled; metrics are read at both of its ends, so differences between
// them belong to it.
//
// Bounds: a window is at most MaxWindow; an answer at most maxBody. A profile
// that the server does not offer is noted in Missing and is no failure.
package capture
