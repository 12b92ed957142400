// Package pagestore keeps opaque records in append-only segment files: append,
// read by reference, seal, reclaim, checkpoint.
//
// It owns the format and the life of segments, pages, hint footers, the state and
// the manifest, the memory for pages, and the rule of what a crash leaves. It
// refuses to know what a record or a hint means, which records are wanted (it
// asks), and that there is a log: whatever lies behind the last checkpoint is
// thrown away at Open, and the owner appends it again from its log.
//
// # Terms
//
//   - record: bytes given to Append; found again by its Ref.
//   - unit: 4 KiB. Pages begin and end on units.
//   - page: up to 16 KiB with several records, or a jumbo page with one of any
//     length. The unit of checksum, cache and cold read.
//   - segment: a file of pages, closed when it has reached SegmentBytes.
//   - epoch: a number drawn for each segment when it is created.
//   - hint: what Options.Hint makes of a record; what the owner needs at start.
//   - footer: the hints of a full segment, behind its last page of records.
//   - cut: a point between two records; Commit makes it the checkpoint.
//   - manifest: the checkpoint's list of segments. slot: one of its two copies.
//   - state: the owner's larger blob that belongs to a checkpoint.
//   - incarnation: how often the store has been opened.
//   - retired: a segment whose live records have all been copied elsewhere.
//   - export: a checkpoint held open for a copy. blob: what of it is copied as one.
//   - home: the directory of the store and of those received from other members.
//   - incoming: a store that is being received.
//
// # Who may call what
//
//   - The writer, one goroutine: Append, Alloc, Cut, Roll.
//   - Any goroutine: Read, Pin, Free, Size, Stats, Scrub, NoSpace, TryExport and
//     the methods of an Export, Cut.Commit (one runs, others wait), Reclaim (the
//     same). None of them makes Append or Read wait for a disk; Append itself waits
//     only past Options.DirtyBytes.
//   - Home: any goroutine, but one Receive or Fetch at a time.
//   - Hints, ClearLive and Keep: between Open and the first Append.
//
// Goroutines: one, the write behind, started by Open and awaited by Close; none
// with Options.Inline. It writes sealed pages in runs of up to FlushBytes.
// Queues: the sealed pages of the writer and of Reclaim, together at most
// DirtyBytes (Reclaim stops at half of it) plus one page; while the disk is full,
// NoSpaceBytes more, then Append returns ErrNoSpace.
//
// Locks, in this order; only the first four are held during I/O: reclaiming,
// scrubbing, committing, flushing, Store.mu, tally.mu and cache.mu.
//
// # Invariants
//
//  1. A byte of a segment file is written once in an epoch. After a restart no
//     segment is appended to: the store goes on in a new one. So a page whose
//     head names this segment, this offset and this epoch, and whose checksum
//     is right, is the page that belongs there: there has been no other. (A
//     write that failed for lack of space is repeated with the same bytes; a
//     footer may be written again, with the same content or for another length,
//     which it names.)
//  2. No byte of a record is returned from a page that was not verified since it
//     was loaded from the disk. Pages that this process wrote are served from
//     memory until they are in their file.
//  3. The manifest on the disk names only what was synced before it was written.
//  4. What is removed or cut off is not named by any manifest that recovery could
//     find.
//  5. A checkpoint has no record twice: the copies made by Reclaim enter it in
//     the same Cut in which the segments they were copied from leave it; and it
//     has no copy of a record that was dead before the copy was taken by the
//     owner.
//  6. A reader with a Pin finds every segment that it could find when it took
//     the Pin.
//
// # Format, version 1
//
// Little-endian. Checksums are xxhash64, at offset 0 of what they cover, over
// everything behind them. Checksum, magic and version keep their places in all
// versions. A sound structure with another version is refused with a
// VersionError.
//
// Files: <8 hex digits of the segment id>.pages, manifest-0, manifest-1, and
// state-<16 hex digits of a sequence>. Other files are not touched.
//
// Page, at a multiple of 4096:
//
//	 0  u64 checksum of the bytes 8 to length
//	 8  u32 magic "QUPG"
//	12  u16 version
//	14  u16 kind: 1 records, 2 jumbo, 3 hints
//	16  u32 segment id
//	20  u32 number of records, or of footer entries
//	24  u64 offset of this page in the file
//	32  u64 epoch: incarnation << 32 | 32 random bits
//	40  u32 length of the page, a multiple of 4096; at most 16384 for kind 1
//	44  u32 end of the content; zeroes from there to length
//	48      content
//
// Content of kinds 1 and 2: for each record a uvarint of its length << 1, with
// bit 0 set if it is void, and its bytes. A Ref points at the uvarint. Kind 2 has
// exactly one record. Void records are not counted in the head, have no entry in
// the footer and are never read: copies that Reclaim made for nothing.
//
// Content of kind 3, one page of a footer:
//
//	48  u64 end of the pages of records in this segment
//	56      for each record, in order of place, four uvarints and the hint:
//	        page start in units, less that of the entry before it on this page
//	        offset in the page
//	        length << 1 | 1 if jumbo
//	        length of the hint
//
// Manifest, at offset 0 of its file; the rest of the file is arbitrary:
//
//	 0  u64 checksum of the bytes 8 to length
//	 8  u32 magic "QUMF"
//	12  u16 version
//	14  u16 flags: 1 a Cut has been committed, 2 the state lies here
//	16  u64 sequence: of two manifests, the higher one counts
//	24  u64 incarnation
//	32  u32 length
//	36  u32 number of segments
//	40  u64 store id, drawn when the store was created
//	48  u64 sequence that wrote the state, 0 without a state
//	56  u64 length of the state
//	64  u64 checksum of the state
//	72  u32 next segment id
//	76  u32 length of the owner's meta
//	80  u64 zero
//	88      meta, with zeroes to a multiple of 8
//	        the state if flag 2, with zeroes to a multiple of 8
//	        48 bytes for each segment, in order of creation:
//	         0  u32 id
//	         4  u32 flags: 1 it has a footer
//	         8  u64 epoch
//	        16  u64 end of the pages of records
//	        24  u64 end of the footer, 0 without one
//	        32  u64 number of records
//	        40  u64 bytes of live records, an estimate for people
//
// State file, for states of more than 32 KiB:
//
//	 0  u64 checksum of the bytes 8 to 64
//	 8  u32 magic "QUST"
//	12  u16 version
//	14  u16 zero
//	16  u64 sequence
//	24  u64 length of the content
//	32  u64 checksum of the content
//	40      zeroes
//	64      content
//
// # Commit
//
//  1. Wait until the pages of the cut are written to their files.
//  2. Write footers of segments that are full, derived by reading the pages back.
//  3. Sync the segments that were written to.
//  4. Write and sync the state file, unless the state is small or unchanged.
//  5. Write and sync the slot that is not known to be the newest. This is the
//     moment at which the checkpoint changes.
//  6. Write and sync the other slot with the same bytes.
//  7. Remove state files that the manifest does not name, and retired segments
//     that no Pin holds.
//
// # Recovery
//
//  1. Read both slots; take the sound one with the higher sequence. None, with no
//     other file of ours and at most one slot ever written to: a fresh directory.
//     None otherwise: refuse.
//  2. Check that every segment that it names is there and long enough, and that
//     the state is whole. If not: refuse. Up to here nothing has been changed.
//  3. Write the bytes of the slot that counts to it once more, and sync it. Then
//     write and sync the manifest with the next incarnation, to the other slot
//     first, then to this one.
//  4. Cut every segment back to the length in the manifest, remove segment and
//     state files that it does not name.
//
// The manifest that was read may not be on the disk: if the process was killed in
// Commit between a write and its sync, or the sync failed, it is in the kernel's
// memory only. Then the other slot is the only one on the disk, and must not be
// written before this one is; and a power cut could bring the older manifest
// back, which names the files that step 4 removes. Hence the first half of step 3,
// and step 3 before step 4.
//
// # Crashes, case by case
//
// Before step 5 of Commit has written anything: both slots are as they were. New
// pages, footers and the state file are behind the checkpoint, and are cut off or
// removed. It does not matter which of their writes arrived.
//
// During step 5: the slot is whole and new, or whole and old (none of the write
// arrived), or torn, and then its checksum fails and the other slot counts,
// which is the old checkpoint. A new whole one is a checkpoint that nobody was
// told of; all that it names was synced in steps 3 and 4.
//
// During step 6: the new one counts, whatever became of the other.
//
// During step 7: the manifest in both slots does not name what is being removed.
// Open removes the rest.
//
// During recovery: before step 3 nothing was changed; step 3 is steps 5 and 6 of
// a Commit that changes only the incarnation; step 4 is repeated by the next
// Open. Pages of the new incarnation are written after step 3, so no two
// processes ever write pages of one incarnation, not even if a power cut takes
// all of the first one's writes away.
//
// The first two slots: slot 0 is created, written and synced, then slot 1, then
// anything else. A crash before the end leaves no other file and at least one
// slot that is blank or missing, or slot 0 whole.
//
// A Commit that failed for lack of space may have written the manifest all the
// same. It names files that stay until a later Commit has succeeded, and its
// sequence is not used again.
//
// # Stores that come from another member
//
// A store can take the place of another: the checkpoint of another member, copied
// file by file, with the owner's own meta. Segment ids, epochs, store id and
// incarnation stay what they are: pages name them. So the copy lies in a directory
// of its own and not among the segments of the old store; the first Open begins
// the next incarnation, so that whatever this member writes differs from what the
// other one does. home.go has the files.
//
//  1. The record incoming-N is written under another name, synced and renamed.
//  2. Each segment is written to a part, verified page by page and as a whole
//     against the peer's checksum, synced and renamed; then the state.
//  3. Both slots are written and synced.
//  4. The record is renamed to current-N. This is the moment at which the store
//     changes.
//  5. The files of the older store are removed, then its record, if it has one.
//
// Before step 4 nothing refers to the directory but the incoming record; the
// current store is whole, whatever became of any write. A crash leaves parts, of
// which only pages that verify are used again, after they have been written and
// synced once more, and whole files, which were synced before they got their
// names. During step 4 the record has one name or the other: steps 1 to 3 are
// durable, so either store is whole. After it the new store counts, and whatever
// of the old one is left goes at the next start. A record goes after the files of
// its directory, so that none are forgotten.
//
// A sealed segment can be linked from one directory to another, because nobody
// writes to it again while both are there. If a later process finds its footer
// damaged and rewrites it, that is the same footer, or the other copy, which is
// not current yet, fails its check and is fetched anew.
//
// # How it fails
//
//   - Disk full: Options.OnNoSpace is told, Commit returns ErrNoSpace, appends go
//     on in memory up to their bound, and the write behind tries again each
//     second. A Commit tries again at once. OnNoSpace is told nil when it works.
//   - Any other error of a write, and every error of a sync (whatever its errno:
//     the kernel may have dropped the data): Options.OnFatal, and nothing can be
//     committed any more. The process has to stop; the log has everything since
//     the checkpoint.
//   - Error of a read: returned by that Read; the next may succeed.
//   - A page that is not what was written there: *CorruptError with file and
//     offset from Read, Hints, Reclaim, Scrub, Commit (which reads back) or Check.
//   - A damaged footer: the pages are read in its place, and a new footer is
//     written in the next incarnation.
//   - A damaged slot: the other one has the same content.
//   - A fault of a peer from which a store is received: *FetchError. The current
//     store does not notice anything that goes wrong with an incoming one.
//   - Bytes that were never written, in the right place with a right checksum:
//     not detected. That takes a forger.
package pagestore
