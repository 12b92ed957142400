// Package harness runs a server binary as a child process and hands tests the means to drive it from outside: a
// clientv3 client, a bare gRPC connection, the etcdctl binary, signals, and what the process wrote on standard error.
//
// It knows nothing of what is inside the binary. The binary under test is the one that QUIRE_BIN names, else quire
// built from the folder above this module; upstream etcd, etcdctl and etcdutl are built from this module's pinned
// versions (UPSTREAM_BIN, ETCDCTL_BIN and ETCDUTL_BIN name other binaries). Running the suites with QUIRE_BIN set to
// upstream's binary is how their expectations are shown to be etcd's and not ours.
//
// # Terms
//
//   - server: one child process with its data directory and its two listening ports. It keeps both over a restart.
//   - ready: the log line "ready to serve client requests", which etcd prints when its listeners are open and its member
//     has a leader. Start waits for it.
//
// # Invariants
//
//   - Every process that a test starts is gone when the test ends, by kill if need be.
//   - No environment variable ETCD_… of the caller reaches a server.
//   - When a test fails, the tail of the log of each server it started is part of its output.
package harness
