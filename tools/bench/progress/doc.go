// Package progress tells a person how far a benchmark is: a bar on a terminal,
// plain lines elsewhere. It writes to one stream and is safe for concurrent
// use.
package progress
