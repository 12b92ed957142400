// Package durability kills servers under load and checks what they had promised: whatever was acknowledged is there
// after the restart, at its revision; what a watcher was shown stays; revisions never go back; a transaction is there
// as a whole or not at all.
//
// The kills are SIGKILLs of the process: the kernel keeps what was written. Power cuts are the business of the crash
// tests of the storage packages.
//
//	go test ./durability -rounds 50     more kills
//
// # Terms
//
//   - acknowledged: the client got an answer without an error.
//   - unknown: the request failed or was cut off; it may have been done or not, but not half, and not twice.
package durability
