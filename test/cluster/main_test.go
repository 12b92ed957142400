package cluster

import (
	"os"
	"testing"

	"quire/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
