// Package trial runs one workload once against one server and measures both
// ends: it opens the connections, lets the workload prepare itself, drives it
// through package loop and takes CPU and memory at the window's edges.
//
// A trial owns its connections and streams; all are closed when Run returns.
// The client's own CPU is measured over the same window, because a client that
// is busier than the server measures itself. Preparation is bounded by
// PrepareLimit, the run by its window and package loop's grace.
package trial
