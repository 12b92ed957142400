// Package etcdfile reads and writes the files of an etcd member: its database,
// which is also what a snapshot is, and its log, which is only read. It knows
// etcd's encodings and nothing of the engine's pages and index.
//
// # The database
//
// A bbolt file with these buckets (schema of etcd 3.7; the keys and values are
// those that etcd itself writes):
//
//	key              revision → wire bytes of mvccpb.KeyValue
//	                   revision: u64 main, '_', u64 sub, big endian; a tombstone
//	                   has a 't' behind it and only the key in its value
//	meta             consistent_index, term: u64 big endian
//	                 confState: JSON of raftpb.ConfState
//	                 storageVersion: text, absent before 3.6
//	                 scheduledCompactRev, finishedCompactRev: a revision with sub 0
//	lease            u64 big endian → leasepb.Lease {ID = 1, TTL = 2, RemainingTTL = 3}
//	alarm            etcdserverpb.AlarmMember → nothing
//	auth             authEnabled: one byte; authRevision: u64 big endian
//	authUsers        name → authpb.User
//	authRoles        name → authpb.Role
//	members          ID in hexadecimal → JSON of the member
//	members_removed  ID in hexadecimal → "removed"
//	cluster          clusterVersion: text
//	                 downgrade: JSON {"target-version", "enabled"}
//
// A restore with a raised revision leaves one odd record: a revision without any
// value. It is kept as the version of a key of no length, which nobody can read.
//
// A snapshot, as a server streams it and etcdctl stores it, is the file followed
// by its SHA-256. The file is a multiple of 512 bytes long, so the length tells
// whether the sum is there.
//
// # Writing and reading
//
// Writer goes through go.etcd.io/bbolt. File, the reader, does not: bbolt trusts
// its pages, so that a damaged file ends the process with a fault in mapped
// memory or a loop. pages.go reads the same format with checked bounds, each
// page once, into memory bounded by one page (with its overflow).
//
// Everything that is read is checked: order and shape of keys, encodings, the
// revision inside a record against its key, unknown buckets and names. What
// does not fit is a *CorruptError or, for something of a later etcd, a
// *VersionError: state is never dropped in silence.
//
// # The log
//
// Files named SEQ-INDEX.wal, 16 hexadecimal digits each; INDEX is that of the
// first entry in it. Each record is
//
//	u64 little endian  bits 0–55 length; if bit 63 is set, bits 56–58 padding
//	walpb.Record       {type = 1, crc = 2, data = 3}
//	padding            to a multiple of 8
//
// Types: 1 metadata {NodeID = 1, ClusterID = 2}, 2 entry (raftpb.Entry), 3 state
// (raftpb.HardState), 4 crc, 5 snapshot. The crc of a record is the CRC-32C over the
// data of all records so far; type 4, at the head of each file, repeats the one
// before. A length of 0 ends a file. An entry replaces the entry of its index and
// all after it. Of a record at the end of the last file, which a crash has torn, a
// whole sector is zero; the log ends there.
package etcdfile
