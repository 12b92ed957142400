package pagestore

import (
	"flag"
	"os"
	"runtime/debug"
	"testing"
)

// TestMain lets garbage pile up: the simulations make small stores by the
// hundred thousand, and would spend most of their time in collections.
func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(2000)
	debug.SetMemoryLimit(1 << 30)
	os.Exit(m.Run())
}
