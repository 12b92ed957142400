package main

import (
	"errors"
	"io"
)

// The rooms' offline tools join here as they appear.

var errNotBuilt = errors.New("not available in this build")

func dumpWAL(path string, w io.Writer) error      { return errNotBuilt }
func dumpPages(path string, w io.Writer) error    { return errNotBuilt }
func dumpManifest(path string, w io.Writer) error { return errNotBuilt }
func checkDataDir(path string, w io.Writer) error { return errNotBuilt }
