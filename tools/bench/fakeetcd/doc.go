// Package fakeetcd is just enough of an etcd server, in memory, for the tests of
// the load generator: puts, ranges, the one-compare transactions of the
// workloads, leases without expiry, and watches of a prefix. It is not a model of etcd: it keeps
// no history, so a range at an older revision answers with the newest values.
package fakeetcd
