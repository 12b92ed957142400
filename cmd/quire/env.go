package main

import (
	"flag"
	"fmt"
	"slices"
	"strings"
)

const envPrefix = "ETCD_"

// harmlessEnv are variables with etcd's prefix that its tools and images set.
var harmlessEnv = []string{"ETCD_VERIFY", "ETCD_UNSUPPORTED_ARCH", "ETCD_VERSION"}

// envName returns the variable of a flag.
func envName(flagName string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// envUse is a variable with etcd's prefix and what became of it: its value if a
// flag took it, except that secrets are not repeated.
type envUse struct {
	key, value string
	used       bool
}

// parseEnv sets the flags that the command line left alone from the
// environment (KEY=value lines), and returns faults. A variable beside its flag is
// a fault, as in etcd; one that no flag has is noted in f.env.
func (f *flagSet) parseEnv(environ []string) (faults []error) {
	values := map[string]string{}
	for _, kv := range environ {
		key, value, ok := strings.Cut(kv, "=")
		if ok && strings.HasPrefix(key, envPrefix) {
			values[key] = value
		}
	}
	onCommandLine := map[string]bool{}
	for name := range f.cfg.set {
		onCommandLine[name] = true
	}
	f.VisitAll(func(fl *flag.Flag) {
		key := envName(fl.Name)
		value := values[key]
		delete(values, key)
		switch {
		case value == "":
		case onCommandLine[fl.Name]:
			faults = append(faults, fmt.Errorf("conflicting environment variable %s is shadowed by corresponding command-line flag --%s (either unset environment variable or disable flag)", key, fl.Name))
		default:
			if err := f.Set(fl.Name, value); err != nil {
				faults = append(faults, fmt.Errorf("invalid value %q for %s: %w", value, key, err))
				return
			}
			f.cfg.set[fl.Name] = true
			if slices.Contains(secretFlags, fl.Name) {
				value = masked
			}
			f.env = append(f.env, envUse{key, value, true})
		}
	})
	for key := range values { // the value may be a secret of somebody else's
		if !slices.Contains(harmlessEnv, key) {
			f.env = append(f.env, envUse{key: key})
		}
	}
	slices.SortFunc(f.env, func(a, b envUse) int { return strings.Compare(a.key, b.key) })
	return faults
}

// lookupEnv returns the value of key in KEY=value lines.
func lookupEnv(environ []string, key string) string {
	for _, kv := range environ {
		if k, v, _ := strings.Cut(kv, "="); k == key {
			return v
		}
	}
	return ""
}
