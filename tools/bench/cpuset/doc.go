// Package cpuset pins this process, or a process about to be started, to some
// of the machine's processors.
//
// A Set is written as Linux writes them, for example 0,2-3; the empty Set means
// "wherever the kernel likes". Affinity belongs to a thread and is inherited:
// PinSelf therefore pins every thread there is, and Start pins the thread that
// forks and gives it its old affinity back.
package cpuset
