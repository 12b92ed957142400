package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// Proc is what /proc says of a process.
type Proc struct {
	Threads                int
	Voluntary, Involuntary int64 // context switches of the threads that live
	ReadBytes, WriteBytes  int64 // disk
	RSSBytes, AnonBytes    int64
}

// ReadProc reads /proc/PID; with PID 0 it gives zeroes.
func ReadProc(pid int) (Proc, error) {
	if pid == 0 {
		return Proc{}, nil
	}
	p, err := readProc(os.DirFS(fmt.Sprintf("/proc/%d", pid)))
	if err != nil {
		return p, fmt.Errorf("process %d: %w", pid, err)
	}
	return p, nil
}

func readProc(proc fs.FS) (Proc, error) {
	var p Proc
	if err := numbers(proc, "status", map[string]*int64{"VmRSS": &p.RSSBytes, "RssAnon": &p.AnonBytes}); err != nil {
		return p, err
	}
	p.RSSBytes, p.AnonBytes = p.RSSBytes*1024, p.AnonBytes*1024 // the file has kB
	err := numbers(proc, "io", map[string]*int64{"read_bytes": &p.ReadBytes, "write_bytes": &p.WriteBytes})
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return p, err
	}
	tasks, err := fs.ReadDir(proc, "task")
	if err != nil {
		return p, err
	}
	p.Threads = len(tasks)
	for _, t := range tasks {
		err := numbers(proc, path.Join("task", t.Name(), "status"), map[string]*int64{
			"voluntary_ctxt_switches": &p.Voluntary, "nonvoluntary_ctxt_switches": &p.Involuntary,
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a thread may end meanwhile
			return p, err
		}
	}
	return p, nil
}

// numbers adds the "Name: number …" lines of a file to what want names.
func numbers(proc fs.FS, file string, want map[string]*int64) error {
	text, err := fs.ReadFile(proc, file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		to := want[name]
		fields := strings.Fields(rest)
		if to == nil || len(fields) == 0 {
			continue
		}
		v, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", name, file, err)
		}
		*to += v
	}
	return nil
}
