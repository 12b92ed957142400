// Package versus compares quire with upstream etcd: it runs the same workloads
// against both, in turn, on the same disk, and takes medians and paired ratios.
//
// Terms: a round is one trial of quire followed by one of upstream, each with a
// new process and an empty data directory. What drifts on the machine between
// two rounds then hits both. A Pair is one workload with its rounds. A ratio is
// taken within each round and says how many times better quire is: operations
// per second quire/upstream, costs and latencies upstream/quire. The median of
// the ratios is reported with the lowest and the highest.
//
// The capacity part loads one key space, reads memory and disk size, and
// restarts each server several times after SIGTERM and after SIGKILL; the page
// cache is warm then, for both.
//
// Failures: a workload that fails on one side is noted in its Pair and the
// comparison goes on; a missing binary or directory ends it. A comparison that
// is interrupted keeps what it has.
package versus
