// Package abuse mistreats a server as hostile, broken and merely slow clients do: bombs, floods, rubbish, half requests,
// readers that never read. Each test asserts that meanwhile the server answers others, that it ends the offender or stays
// within a bound of memory, and that nothing of it is left when it is over.
//
// Bounds are in bytes of resident memory and in goroutines (the server's own metric), never in time. They hold for quire;
// with upstream's binary under test they are not asserted, but the rest is.
package abuse
