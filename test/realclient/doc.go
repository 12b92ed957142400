// Package realclient tests a server from outside with the clients that the world uses: clientv3, its recipe packages,
// its generated gRPC clients where clientv3 hides a field, and the etcdctl binary. One file per area. Every expectation
// holds for upstream etcd v3.7.1 too, unless a test says that it is quire's own.
//
// A top-level test has a server of its own, so it may name revisions by number; its subtests share it. In the
// expectations key-values are written as key=value(create,mod,version), with +lease behind when there is one.
package realclient
