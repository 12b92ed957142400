package main

import (
	"fmt"
	"io"
	"path/filepath"
)

// command is a subcommand of quire. The table is what dispatches them and what
// the help text lists; a new one is a new row.
type command struct {
	name string
	args string
	does string
	// run does it with the words behind the name and returns the exit code.
	run func(args []string, out, errOut io.Writer) int
}

func commands() []command {
	return []command{
		{"help", "[TOPIC]", `this text, or one about "flags", a group of flags, a flag or a command`, help},
		{"version", "", "what this is and what it was built from", func(_ []string, out, _ io.Writer) int {
			printVersion(out)
			return 0
		}},
		{"check", "DATA_DIR", "verify every checksum and invariant of a stopped server's data", offlineCommand("check")},
		{"restore", "SNAPSHOT --data-dir DIR", "make a data directory of a snapshot", etcdCommand("restore")},
		{"import", "--etcd-data-dir DIR --data-dir DIR", "make a data directory of a stopped etcd's", etcdCommand("import")},
		{"export", "FILE --data-dir DIR", "write a stopped server's data as an etcd snapshot", etcdCommand("export")},
		{"dump", "wal|pages|manifest PATH", "print a stopped server's log, its pages or its checkpoints", offlineCommand("dump")},
	}
}

func findCommand(name string) (command, bool) {
	for _, c := range commands() {
		if c.name == name {
			return c, true
		}
	}
	return command{}, false
}

// offlineCommand is one of those in offline.go, which look at their name.
func offlineCommand(name string) func(args []string, out, errOut io.Writer) int {
	return func(args []string, out, errOut io.Writer) int {
		return offline(append([]string{name}, args...), out, errOut)
	}
}

// etcdCommand is one of those in subcommand.go.
func etcdCommand(name string) func(args []string, out, errOut io.Writer) int {
	return func(args []string, out, errOut io.Writer) int { return runSubcommand(name, args, out, errOut) }
}

// proxies are etcd's own subcommands, which are not rebuilt here.
func proxies(name string, errOut io.Writer) int {
	fmt.Fprintf(errOut, "quire has no %q subcommand: it needs nothing of the server, so etcd's own can stand in front of quire\n", name)
	return 1
}

// calledEtcd tells whether the binary was called by etcd's name. Then it takes
// etcd's command line and no more.
func calledEtcd(arg0 string) bool { return filepath.Base(arg0) == "etcd" }
