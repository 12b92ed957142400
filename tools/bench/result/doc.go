// Package result is what one trial found out: a Result, its JSON form and its
// row in a table.
//
// Terms: a Trial is one workload run once against one server. Server and Client
// are the CPU and memory of both ends over the same window; per operation means
// divided by the operations that ended in the window. Latencies are in
// microseconds. A Curve is the latency distribution at fixed percentiles, for
// plots.
//
// The JSON form has no host names and no paths.
package result
