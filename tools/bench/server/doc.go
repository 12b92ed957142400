// Package server starts, restarts and stops the etcd-compatible servers under
// test, each a process of its own on the loopback, and measures what only its
// parent can: the time from start to the first linearizable read, and the size
// of its data on disk.
//
// Terms: a Server is one data directory with its ports; it is started and
// stopped any number of times and keeps both. Quire and upstream get the same
// flags, so the same durability, quota and log level.
//
// Ownership: whoever calls New owns the directory and removes it with Remove.
// A server process is killed by the kernel if its parent dies.
//
// Failures name the side and quote the last lines of the server's log.
package server
