// Package cluster drives clusters of three and five real server processes from outside: members are killed, paused, cut
// off, wiped and replaced while clients write, read and watch, and everything that the clients saw is checked.
package cluster
