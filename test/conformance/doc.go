// Command conformance runs etcd's own end-to-end tests, package
// go.etcd.io/etcd/tests/v3/common, against a server binary.
//
//	conformance -server ../../bin/quire                the whole package
//	conformance -server ../../bin/quire -run '^TestKV' some of it
//	conformance -upstream                              etcd itself, to see that the tests hold here
//
// # Stages
//
//  1. build.go: upstream's etcdctl, etcdutl and the test binary are built from the versions pinned in go.mod, and a
//     folder is laid out in which the server is called etcd.
//  2. run.go: the test binary runs in its source folder, where its certificates lie; its output becomes one result
//     per test and subtest.
//  3. exceptions.go: each failure is looked up in the list of those that cannot apply, exceptions.txt.
//  4. main.go: a line per test, a summary, and the tail of the log of each failure that is not on the list.
//
// The exit code is 0 only if nothing failed that is not on the list and nothing on the list passed: a list that is
// too long hides what is broken later.
package main

// The test package is linked for its version in go.mod alone; the binary is built from it by name.
import (
	_ "go.etcd.io/etcd/tests/v3/framework/e2e"
	_ "go.etcd.io/etcd/tests/v3/framework/integration"
)
