package realclient

import (
	"flag"
	"os"
	"testing"
)

// parallelTests is how many tests run at a time when -parallel is not given: most of them wait most of the time, for a
// server's election or a lease's end.
const parallelTests = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", parallelTests); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
