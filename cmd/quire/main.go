package main

import (
	"errors"
	"fmt"
	"os"
)

func main() {
	os.Exit(run(os.Args, os.Environ()))
}

// run is main with its exit code: 0, or 1 after a fault was printed.
func run(args, environ []string) int {
	if len(args) > 1 {
		switch args[1] {
		case "help":
			newFlagSet(newConfig()).help(os.Stdout)
			return 0
		case "dump", "check":
			return offline(args[1:], os.Stdout, os.Stderr)
		case "restore", "import", "export":
			return runSubcommand(args[1], args[2:], os.Stdout, os.Stderr)
		case "gateway", "grpc-proxy":
			fmt.Fprintf(os.Stderr, "quire has no %q subcommand; etcd's own binary can stand in front of quire\n", args[1])
			return 1
		}
	}
	cfg := newConfig()
	set, faults := load(cfg, args[1:], environ)
	if len(faults) == 1 && errors.Is(faults[0], errHelp) {
		newFlagSet(newConfig()).help(os.Stdout)
		return 0
	}
	if cfg.ShowVersion && len(faults) == 0 {
		printVersion(os.Stdout)
		return 0
	}
	if len(faults) == 0 {
		var refusals []error
		set.ignored, refusals = set.withoutEffect()
		faults = append(refusals, cfg.Validate()...)
	}
	if len(faults) > 0 {
		for _, f := range faults {
			fmt.Fprintln(os.Stderr, f)
		}
		fmt.Fprintln(os.Stderr, `Run "quire help" for the flags.`)
		return 1
	}
	return serve(cfg, set, args)
}

// load reads the sources in etcd's order: a configuration file stands alone,
// otherwise flags and environment together. It returns every fault it meets.
func load(cfg *Config, args, environ []string) (*flagSet, []error) {
	set := newFlagSet(cfg)
	faults := set.parseArgs(args)
	if len(faults) > 0 || cfg.ShowVersion {
		return set, faults
	}
	if cfg.ConfigFile == "" {
		cfg.ConfigFile = lookupEnv(environ, envName("config-file"))
	}
	if path := cfg.ConfigFile; path != "" {
		// Start again: the file is the only source.
		*cfg = *newConfig()
		set = newFlagSet(cfg)
		cfg.ConfigFile = path
		faults = set.parseFile(path)
	} else {
		set.envWarnings, faults = set.parseEnv(environ)
	}
	cfg.settle()
	return set, faults
}
