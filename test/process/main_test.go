package process

import (
	"os"
	"testing"

	"quire/test/harness"
)

func TestMain(m *testing.M) {
	harness.ParallelByDefault()
	os.Exit(m.Run())
}
