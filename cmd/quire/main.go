package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
)

// Exit codes: as etcd, a flag that cannot be parsed is 2, everything else 1.
const (
	exitFault = 1
	exitFlags = 2
)

func main() {
	os.Exit(run(os.Args, os.Environ()))
}

// run is main with its exit code.
func run(args, environ []string) int {
	asEtcd := calledEtcd(args[0])
	if len(args) > 1 {
		if args[1] == "gateway" || args[1] == "grpc-proxy" {
			return proxies(args[1], os.Stderr)
		}
		if c, ok := findCommand(args[1]); ok && !asEtcd {
			return c.run(args[2:], os.Stdout, os.Stderr)
		}
	}
	cfg := newConfig()
	set, faults := load(cfg, args[1:], environ)
	if len(faults) == 1 && errors.Is(faults[0], errHelp) {
		if asEtcd {
			fmt.Fprint(os.Stderr, etcdUsage)
		}
		newFlagSet(newConfig()).allFlags(os.Stdout)
		return 0
	}
	if cfg.ShowVersion && len(faults) == 0 {
		printVersion(os.Stdout)
		return 0
	}
	if len(faults) == 0 {
		set.ignored = set.withoutEffect()
		faults = cfg.Validate()
	}
	if len(faults) > 0 {
		return complain(faults, args, asEtcd)
	}
	return serve(cfg, set, args)
}

// complain reports the faults of a configuration. Flags that cannot be parsed
// come first and alone, in plain text as from every program with Go's flags; what
// else is wrong is told in the form of the log, as in etcd.
func complain(faults []error, args []string, asEtcd bool) int {
	code := exitFault
	for _, f := range faults {
		var wrong *flagError
		if errors.As(f, &wrong) {
			code = exitFlags
			fmt.Fprintln(os.Stderr, f)
		}
	}
	if code == exitFlags {
		hint(os.Stderr, asEtcd)
	}
	log := newFaultLog(os.Stderr)
	if code == exitFault {
		log.Info("Running: ", zap.Strings("args", maskArgs(args)))
	}
	for _, f := range faults {
		var wrong *flagError
		if !errors.As(f, &wrong) {
			log.Warn("failed to verify flags", zap.Error(f))
		}
	}
	return code
}

func hint(w io.Writer, asEtcd bool) {
	if asEtcd {
		fmt.Fprint(w, etcdUsage)
		return
	}
	fmt.Fprintln(w, `Run "quire help flags" for all flags.`)
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
		faults = set.parseEnv(environ)
	}
	cfg.settle()
	return set, faults
}
