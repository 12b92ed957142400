package npm

import (
	"os"
	"testing"

	"quire/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
