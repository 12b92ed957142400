package usage

import (
	"errors"
	"io/fs"
)

// readOne reads one process's directory of /proc.
func readOne(proc fs.FS) (Reading, error) {
	var r Reading
	stat, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return r, err
	}
	if r.User, r.System, err = parseStat(stat); err != nil {
		return r, err
	}
	status, err := fs.ReadFile(proc, "status")
	if err != nil {
		return r, err
	}
	var shmem int64
	err = parseFields(status, map[string]*int64{
		"VmRSS": &r.RSSBytes, "VmHWM": &r.PeakBytes, "RssAnon": &r.AnonBytes, "RssFile": &r.FileBytes, "RssShmem": &shmem,
		"Threads": &r.Threads,
	})
	if err != nil {
		return r, err
	}
	r.AnonBytes += shmem
	io, err := fs.ReadFile(proc, "io")
	if errors.Is(err, fs.ErrPermission) {
		return r, nil // another user's process: everything but its disk traffic
	}
	if err != nil {
		return r, err
	}
	return r, parseFields(io, map[string]*int64{"read_bytes": &r.ReadBytes, "write_bytes": &r.WriteBytes})
}
