// Command profile captures what a running etcd-compatible server does while a
// named load runs against it, and folds it into tables a person can read.
//
// It takes CPU, allocation, heap, block and mutex profiles from /debug/pprof
// over one and the same window, counts system calls with strace in a second
// window (strace slows the server, so the windows never overlap), and reads
// latencies of durable writes and the number of calls from /metrics before and
// after. Everything lands in one folder: the raw files, one table per profile
// and summary.md.
//
// The parts, each a package: capture (takes the raw data), fold (makes tables
// of it). README.md has the commands.
package main
