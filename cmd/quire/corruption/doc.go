// Package corruption compares what members have made of the same log, and raises
// the CORRUPT alarm of a member that has made something else of it.
//
// It owns the questions that members ask each other about that, who is right when
// answers differ, and the search for the first entry that made a difference. It
// refuses to know how calls travel, how an alarm is agreed on and what it does:
// those are functions of Config, and package engine.
//
// # The continuous check
//
// The engine keeps a rolling hash of all that applying has done, and remembers it
// after every eighth entry: a mark. Marks of the same entry are equal on all
// members, and once two members differ they differ for good. Continuous, once a
// second on the leader, compares its own marks with those of the members whose
// newest is not known to be equal, or that may have been started anew since. In a
// cluster at rest nobody is asked anything.
//
// What two members cannot both have says nothing: a member that lags, has just
// started or has come by a snapshot has other marks or none. It is compared when
// it has one in common with others; if nobody writes, entries that do nothing are
// made for that, eight at most.
//
// When marks differ, everybody is asked, and an entry decides of which more than
// half of all members have the same mark: who has another one is divergent. Without
// such a majority nobody can tell who is right, and the alarm names member 0, as
// etcd's does: after every member has answered, or when patience has passed
// without one that was missing. Then the first difference is searched for, in 65
// parts at a time, and logged with the last entry that was equal.
//
// # etcd's checks
//
// Hashes makes those comparisons that etcd has (--corrupt-check-time, the gates
// CompactHashCheck and InitialCorruptCheck), with HashKV, etcd's rules and etcd's
// words. They read everything that is stored, and find also what has changed since
// it was written.
//
// # Bounds
//
// A question names at most maxIndices entries, and an answer has no more marks.
// Answers that cannot be understood count as none. A round asks each member at
// most twice, a search maxProbes times; each question ends after askTimeout.
//
// # Failure
//
// A member that does not answer is not judged. An alarm that cannot be raised,
// because there is no quorum, is tried again in the next round.
package corruption
