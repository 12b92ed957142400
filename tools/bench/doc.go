// Command bench loads etcd endpoints with named workloads and, with -versus,
// compares quire with upstream etcd side by side on the same disk.
//
// It is a module of its own: it links upstream's API, whose protobuf types
// would collide with quire's, and it must see a server only as its clients do.
// README.md has the commands; bench -list has the workloads.
//
// The parts, each a package: client (connections and raw calls), workload (what
// an operation is), loop (closed and open loop), usage (CPU and memory from
// /proc), trial (one workload against one server), result (figures and tables),
// server (processes under test), versus (the comparison), report (the HTML).
package main
