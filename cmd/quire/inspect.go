package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"quire/disk"
	"quire/pagestore"
	"quire/wal"
)

// openOffline opens a directory for reading; a server that runs in it keeps it
// locked.
func openOffline(path string) (*disk.Dir, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return disk.OpenDir(path, disk.Options{ReadOnly: true})
}

// part returns the subdirectory of a data directory, or path itself if it is
// that already.
func part(path, name string) string {
	if sub := filepath.Join(path, name); isDir(sub) {
		return sub
	}
	return path
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// dumper makes a subcommand of a room's dump function.
func dumper(sub string, dump func(disk.FS, io.Writer) error) func(string, io.Writer) error {
	return func(path string, w io.Writer) error {
		dir, err := openOffline(part(path, sub))
		if err != nil {
			return err
		}
		return errors.Join(dump(dir, w), dir.Close())
	}
}

// current makes a dump function of a store look where the current one lies.
func current(dump func(disk.FS, io.Writer) error) func(disk.FS, io.Writer) error {
	return func(fsys disk.FS, w io.Writer) error {
		fsys, err := pagestore.Locate(fsys)
		if err != nil {
			return err
		}
		return dump(fsys, w)
	}
}

// checkDataDir verifies the store and, unless --wal-dir put it elsewhere, the
// log of a data directory. A log directory can be checked by its own path.
func checkDataDir(path string, w io.Writer) error {
	store, log := filepath.Join(path, storeDir), part(path, logDir)
	var faults []error
	if isDir(store) {
		faults = append(faults, checkStore(store, w))
	} else if log == path {
		store = ""
	}
	if log != path || store == "" {
		faults = append(faults, checkLog(log, w))
	} else {
		fmt.Fprintf(w, "no log in %s; if it was started with --wal-dir, check that directory too\n", path)
	}
	return errors.Join(faults...)
}

func checkStore(path string, w io.Writer) error {
	dir, err := openOffline(path)
	if err != nil {
		return err
	}
	current, err := pagestore.Locate(dir)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	r := pagestore.Inspect(current)
	fmt.Fprintf(w, "store %s: %d segments, %d pages, %d records, %d bytes verified\n", path, r.Segments, r.Pages, r.Records, r.Bytes)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "store %s: note: %s\n", path, n)
	}
	return errors.Join(r.Err(), dir.Close())
}

func checkLog(path string, w io.Writer) error {
	dir, err := openOffline(path)
	if err != nil {
		return err
	}
	r, err := wal.Check(dir)
	fmt.Fprintf(w, "log %s: %d segments, %d batches, %d records verified\n", path, r.Segments, r.Batches, r.Records)
	if r.CutBytes > 0 {
		fmt.Fprintf(w, "log %s: note: torn tail of %d bytes at offset %d of %s; a start cuts it\n", path, r.CutBytes, r.CutOff, r.CutFile)
	}
	return errors.Join(err, dir.Close())
}
