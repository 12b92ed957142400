// Package process tests a server as a process: flags, environment and configuration file, what it prints, how it ends,
// and where it listens. What operators' scripts and test frameworks written for etcd look for.
package process
