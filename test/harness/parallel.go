package harness

import "flag"

// parallelTests is how many tests of a package run at a time when -parallel is not given: most of them wait most of the
// time, for a server's election or a lease's end.
const parallelTests = "8"

// ParallelByDefault sets -parallel for tests that mostly wait, unless the caller has given it. It is for TestMain.
func ParallelByDefault() {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return
	}
	if err := flag.Set("test.parallel", parallelTests); err != nil {
		panic(err) // the flag is the testing package's
	}
}
