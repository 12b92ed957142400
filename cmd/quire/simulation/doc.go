// Package simulation runs whole clusters in one goroutine: real members (raft,
// log, engine, page store, watch hub) on disks that lose power and fail, a network
// that loses, delays, duplicates, reorders and cuts, clients, and an operator who
// changes the membership. Everything follows from one seed, so that a failure can
// be looked at again and again.
//
// It owns the world around the members and the checks. It knows nothing of what
// happens inside them: it drives raft.Stepper, engine.RunPending and
// watchfanout.RunPending, which do what goroutines do in a server, and it sees
// what a client or a peer sees.
//
// # Terms
//
//   - machine: a place with a disk and a clock. member: a process on it, with an
//     ID for as long as the disk is not wiped. run: from a start to its end.
//   - step: 10 ms of the world's time; a tick of raft is ten of them.
//   - reference: an engine that is handed each committed entry once, when the
//     first member applies it. It has no disk faults and never stops.
//   - rank: the revision at which an operation took effect.
//   - promise: until when a lease must live, as its owner was told.
//
// # A run
//
// First the faults, for some thousand steps, in which only safety is demanded.
// Then everything is repaired, and the cluster has to come to rest: with a
// leader, the same state everywhere, answers to every client.
//
// # What is checked
//
//   - One leader per term.
//   - An entry is the same on every member that applies it, and nothing is
//     applied twice, or although its proposer was told that it never would be.
//   - Members that have applied the same entries are equal (engine.Fingerprint),
//     also after a restart and after a snapshot.
//   - A reply is the one that the reference gives for that entry.
//   - Linearizability, in time linear in the history: an operation that began when
//     another had been acknowledged has no lower rank, a write a higher one; a
//     read finds what the reference has at its revision. Since revisions are a
//     total order of all states, that is enough.
//   - Revisions of serializable reads of one run never go back.
//   - Watches: every matching event from the start revision on, once, in order,
//     whole revisions, with previous values; notifications promise nothing that
//     was not delivered; only what compaction has passed is cancelled.
//   - No lease is revoked by a clock before its promise has passed; all are,
//     soon after, when the faults have ended.
//   - A member ends only when its disk has failed or lost power, or when it was
//     removed, and starts again after every such end.
//   - Members that compare their rolling hashes (package corruption) never find a
//     difference. At the end of a run the store of one is changed, which then must
//     be found, and nobody else accused.
//   - A bit that has flipped in a store never becomes part of a state or of an
//     answer: the member rebuilds its store from another one's and comes back. A
//     member whose log's newest batch was hit does so too, and loses nothing that
//     anybody was promised; one whose log was hit elsewhere refuses, and is replaced.
package simulation
