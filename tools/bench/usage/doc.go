// Package usage reads from /proc what processes consume: CPU time, memory
// and disk traffic.
//
// Terms: a Reading is the state of one process or the sum over several. RSS is
// what is resident; of it, Anon is memory of the process's own and File is
// pages of mapped files (upstream etcd maps its database, so its RSS contains
// page cache that the kernel may take back; Anon does not).
//
// A Sampler is one goroutine that takes readings at an interval until it is
// stopped. CPU time has the resolution of the kernel's clock tick, 10 ms.
//
// Failures: a process that has ended gives an error wrapping fs.ErrNotExist.
package usage
