package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"quire/disk"
)

// apiVersion is the etcd release whose API and behaviour this is. Clients
// switch features by it, so it changes only with the behaviour.
const apiVersion = "3.7.1"

// clusterVersion is what the members of a new cluster agree on: the release
// without its patch number.
const clusterVersion = "3.7.0"

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

// diskEngine tells what durable writes would go through here, and why.
func diskEngine() (engine, reason string) {
	dir, err := os.MkdirTemp("", "quire-version-")
	if err != nil {
		return "unknown", err.Error()
	}
	defer os.RemoveAll(dir)
	d, err := disk.OpenDir(dir, disk.Options{})
	if err != nil {
		return "unknown", err.Error()
	}
	defer d.Close()
	return d.Engine(), d.EngineReason()
}
