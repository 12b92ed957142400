// Package auth tests authentication and authorisation from outside: who may call which method (compared with upstream
// cell by cell), the security advisories that etcd had, tokens over restarts and crashes, and a storm of log-ins beside
// writes. Expectations hold for upstream etcd v3.7.1 too, unless a test says that they are quire's own.
//
// Random histories of the same kind are in package lockstep, etcdctl's output in package realclient.
package auth
