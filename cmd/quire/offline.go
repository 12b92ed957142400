package main

import (
	"fmt"
	"io"

	"quire/pagestore"
	"quire/wal"
)

// offlineCommands are the subcommands that read a directory nobody serves.
var offlineCommands = map[string]func(path string, w io.Writer) error{
	"dump wal":      dumper(logDir, wal.Dump),
	"dump pages":    dumper(storeDir, current(pagestore.DumpPages)),
	"dump manifest": dumper(storeDir, current(pagestore.DumpManifest)),
	"check":         checkDataDir,
}

// offline runs one of them: the last argument is the path.
func offline(args []string, out, errOut io.Writer) int {
	name := args[0]
	rest := args[1:]
	if name == "dump" && len(rest) > 0 {
		name, rest = name+" "+rest[0], rest[1:]
	}
	do := offlineCommands[name]
	if do == nil || len(rest) != 1 {
		fmt.Fprintln(errOut, "usage: quire dump wal|pages|manifest PATH, or quire check DATA_DIR")
		return 1
	}
	if err := do(rest[0], out); err != nil {
		fmt.Fprintf(errOut, "quire %s %s: %v\n", name, rest[0], err)
		return 1
	}
	return 0
}
