// Package host states the facts about this machine that a benchmark's figures
// depend on, and nothing that would identify it: no names, no paths.
package host
