package harness

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// parallelTests is how many tests of a package run at a time when -parallel is not given: most of them wait most of the
// time, for a server's election or a lease's end.
const parallelTests = "8"

// Main runs a package's tests and returns the exit code. It is for TestMain: os.Exit(harness.Main(m)).
func Main(m *testing.M) int {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", parallelTests); err != nil {
			panic(err) // the flag is the testing package's
		}
	}
	code := m.Run()
	if err := writeRunFile(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// "go test" does not see when the binary under test has become another one, and would report an old result as cached.
// It caches no run that has looked at a file of the module which is as new as the run's end. So each run looks at this
// file and writes it at its end.
func runFile() string { return filepath.Join(moduleDir(), ".bin", "run") }

func writeRunFile() error {
	if err := os.MkdirAll(filepath.Dir(runFile()), 0o755); err != nil {
		return err
	}
	return os.WriteFile(runFile(), fmt.Append(nil, os.Getpid()), 0o644)
}
