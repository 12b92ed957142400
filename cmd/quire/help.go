package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

const helpHead = `quire is an etcd server: etcd's API, flags and files over a store of its own.

Usage:
  quire [flags]    start a server
  quire COMMAND    do something else

Commands:
`

const helpTail = `
Examples:
  quire
      one member on http://localhost:2379, its data in ./default.etcd
  quire --name m1 --data-dir /var/lib/quire \
      --listen-client-urls http://10.0.0.1:2379 --advertise-client-urls http://10.0.0.1:2379
      the same where others can reach it
  quire --listen-client-urls https://10.0.0.1:2379 --advertise-client-urls https://10.0.0.1:2379 \
      --cert-file server.pem --key-file server-key.pem --trusted-ca-file clients-ca.pem
      TLS, for clients that have a certificate
  quire --config-file /etc/quire.yaml
      all settings from a file

Flags asked for most:
`

// common are the flags of the first page.
var common = []string{
	"name", "data-dir", "listen-client-urls", "advertise-client-urls", "listen-metrics-urls",
	"cert-file", "key-file", "trusted-ca-file", "quota-backend-bytes", "auto-compaction-retention",
	"auth-token", "log-level", "config-file",
}

// help explains what it is asked about.
func help(args []string, out, errOut io.Writer) int {
	f := newFlagSet(newConfig())
	if len(args) == 0 {
		f.firstPage(out)
		return 0
	}
	topic := strings.ToLower(strings.TrimLeft(strings.Join(args, " "), "-"))
	if topic == "flags" {
		f.allFlags(out)
		return 0
	}
	for _, g := range f.groups {
		if strings.ToLower(g.title) == topic {
			f.printGroup(out, g)
			return 0
		}
	}
	if f.Lookup(topic) != nil {
		f.printFlag(out, topic)
		return 0
	}
	if c, ok := findCommand(topic); ok {
		fmt.Fprintf(out, "quire %s %s\n    %s\n", c.name, c.args, c.does)
		return 0
	}
	fmt.Fprintf(errOut, "quire: nothing is known about %q\n", topic)
	if near := f.near(topic); len(near) > 0 {
		fmt.Fprintf(errOut, "Did you mean %s?\n", strings.Join(near, ", "))
	}
	return 1
}

// firstPage fits on a screen.
func (f *flagSet) firstPage(w io.Writer) {
	fmt.Fprint(w, helpHead)
	width := 0
	for _, c := range commands() {
		width = max(width, len(c.name+c.args)+1)
	}
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-*s  %s\n", width, c.name+" "+c.args, c.does)
	}
	fmt.Fprint(w, helpTail)
	for _, name := range common {
		fmt.Fprintf(w, "  --%-28s %s\n", name, f.Lookup(name).Usage)
	}
	count := 0
	var titles []string
	for _, g := range f.groups {
		count += len(g.names)
		titles = append(titles, strings.ToLower(g.title))
	}
	fmt.Fprintf(w, "\n\"quire help flags\" lists all %d, \"quire help GROUP\" those of one group:\n%s.\n",
		count, wrap(strings.Join(titles, ", "), 78))
	fmt.Fprint(w, "A flag can also be set in the environment: --data-dir is ETCD_DATA_DIR.\n")
}

// allFlags is the reference, and what docs/flags.md shows.
func (f *flagSet) allFlags(w io.Writer) {
	for i, g := range f.groups {
		if i > 0 {
			fmt.Fprintln(w)
		}
		f.printGroup(w, g)
	}
}

func (f *flagSet) printGroup(w io.Writer, g flagGroup) {
	fmt.Fprintf(w, "%s:\n", g.title)
	for _, name := range g.names {
		f.printFlag(w, name)
	}
}

func (f *flagSet) printFlag(w io.Writer, name string) {
	fl := f.Lookup(name)
	note := ""
	if f.effects[name] == none {
		note = " (accepted, no effect in this version)"
	}
	fmt.Fprintf(w, "  --%s '%s'\n    %s%s\n", name, fl.DefValue, fl.Usage, note)
}

// near returns the flags whose names share most with a word.
func (f *flagSet) near(word string) []string {
	type candidate struct {
		name  string
		score int
	}
	var all []candidate
	for _, g := range f.groups {
		for _, name := range g.names {
			score := 0
			for _, part := range strings.FieldsFunc(word, func(r rune) bool { return r == '-' || r == ' ' }) {
				if strings.Contains(name, part) {
					score += len(part)
				}
			}
			if score > 2 {
				all = append(all, candidate{"--" + name, score})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	var names []string
	for _, c := range all[:min(len(all), 3)] {
		names = append(names, c.name)
	}
	return names
}

// wrap breaks a line at spaces.
func wrap(s string, width int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(s) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

// etcdUsage is how etcd begins its help and answers a wrong flag.
const etcdUsage = `Usage:

  etcd [flags]
    Start an etcd server.

  etcd --version
    Show the version of etcd.

  etcd -h | --help
    Show the help information about etcd.

  etcd --config-file
    Path to the server configuration file. If it is given, flags and environment
    variables are ignored. Durations in it are integers, in nanoseconds.

  etcd gateway
  etcd grpc-proxy
    Not part of this binary, which is quire; etcd's own can stand in front of it.

`
