package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// subcommand is one that works on files of etcd.
type subcommand struct {
	usage string // arguments, and what it does
	run   func(s *subrun) error
}

// subrun is one run of a subcommand: run registers its flags, then calls parse.
type subrun struct {
	*flag.FlagSet
	raw []string
	out io.Writer
}

var subcommands = map[string]subcommand{
	"restore": {restoreUsage, restore},
	"import":  {importUsage, importEtcd},
	"export":  {exportUsage, export},
}

// runSubcommand returns the exit code: 0, or 1 after a fault was printed.
func runSubcommand(name string, args []string, out, errOut io.Writer) int {
	c := subcommands[name]
	s := &subrun{FlagSet: flag.NewFlagSet("quire "+name, flag.ContinueOnError), raw: args, out: out}
	s.SetOutput(io.Discard)
	err := c.run(s)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, c.usage, "\nFlags:\n")
		s.SetOutput(out)
		s.PrintDefaults()
		return 0
	}
	fmt.Fprintf(errOut, "Error: %v\n", err)
	return 1
}

// parse reads flags and arguments in any order and wants n arguments.
func (s *subrun) parse(n int, what string) (args []string, err error) {
	for rest := s.raw; ; {
		if err := s.Parse(rest); err != nil {
			return nil, err
		}
		if s.NArg() == 0 {
			break
		}
		args = append(args, s.Arg(0))
		rest = s.Args()[1:]
	}
	if len(args) != n {
		return nil, fmt.Errorf("%s requires exactly %s", s.Name(), what)
	}
	return args, nil
}
