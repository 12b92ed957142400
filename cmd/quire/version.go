package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// apiVersion is the etcd release whose API and behaviour this is. Clients
// switch features by it, so it changes only with the behaviour.
const apiVersion = "3.7.1"

// Set by the build: -ldflags "-X main.version=... -X main.commit=...".
var (
	version = "dev"
	commit  = ""
)

// gitCommit returns the commit that was built, if the build knows it.
func gitCommit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// printVersion prints etcd's four lines, which tools parse, then quire's own.
func printVersion(w io.Writer) {
	fmt.Fprintf(w, "etcd Version: %s\n", apiVersion)
	fmt.Fprintf(w, "Git SHA: %s\n", gitCommit())
	fmt.Fprintf(w, "Go Version: %s\n", runtime.Version())
	fmt.Fprintf(w, "Go OS/Arch: %s/%s\n", runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(w, "quire Version: %s\n", version)
	engine, reason := diskEngine()
	fmt.Fprintf(w, "quire Disk: %s (%s)\n", engine, reason)
}
