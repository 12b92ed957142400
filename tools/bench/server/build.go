package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	upstreamPackage = "go.etcd.io/etcd/server/v3"
	// upstreamModule is where this source tree pins upstream.
	upstreamModule = "tools/bench/upstream"
)

// BuildUpstream builds upstream's etcd from the module that pins it, or finds
// what an earlier call built, and returns the path of the binary.
func BuildUpstream(ctx context.Context) (string, error) {
	root, err := sourceRoot(filepath.Join(upstreamModule, "go.mod"))
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, upstreamModule)
	sum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("reading what upstream is pinned to: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w", err)
	}
	// The name changes with the pinned versions, so an old binary is not used.
	binary := filepath.Join(cache, "quire-bench", fmt.Sprintf("etcd-%x", sha256.Sum256(sum)))
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, upstreamPackage)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building upstream etcd: %w\n%s", err, out)
	}
	return binary, nil
}

// BuildQuire makes bin/quire in the source tree and returns its path.
func BuildQuire(ctx context.Context) (string, error) {
	root, err := sourceRoot(filepath.Join(upstreamModule, "go.mod"))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "make", "build")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building quire: %w\n%s", err, out)
	}
	return filepath.Join(root, "bin", "quire"), nil
}

// sourceRoot looks from the working directory upwards for the directory below
// which mark lies.
func sourceRoot(mark string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, mark))
		if err == nil {
			return dir, nil
		}
		if parent := filepath.Dir(dir); parent != dir && errors.Is(err, fs.ErrNotExist) {
			dir = parent
			continue
		}
		return "", fmt.Errorf("the working directory is not in quire's source tree (no %s above it): name the binaries instead", mark)
	}
}
