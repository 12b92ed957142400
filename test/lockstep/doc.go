// Package lockstep sends the same long random history of requests, valid and invalid ones, to the server under test and
// to upstream etcd, one after another, and compares every field, code and text of every answer.
//
//	go test ./lockstep -seed 7 -requests 200000     another or a longer history
//	go test ./lockstep -replay FILE                 a recorded history
//
// TestAuth does the same for users, roles and permissions: requests of all kinds under tokens of all kinds.
//
// # Terms
//
//   - step: one request with the method it goes to, or one act of the test: open a watcher, bring the watch streams up to
//     date and compare what came on them, kill and restart both servers.
//   - history: a list of steps. A failing one is shortened by leaving out parts as long as it still fails, and printed
//     one step per line; -replay takes such lines.
//
// # What is not compared
//
// Cluster id, member id and raft term, beyond whether they are set; the time left of a lease; the order of a lease's keys
// and of the list of leases; into how many responses a watch packs its events; texts of errors for bytes that are no
// protobuf message (their codes are).
//
// # Why it is deterministic
//
// Each step waits for its answers. Watch streams are brought up to date before anything that would change what is still
// to come on them: a compaction, a cancel, a restart. No lease is short enough to end during a run.
package lockstep
