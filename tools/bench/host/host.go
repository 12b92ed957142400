package host

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Facts are what the figures depend on.
type Facts struct {
	Cores       int    `json:"cores"`
	Processor   string `json:"processor"`
	MemoryBytes int64  `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
	Filesystem  string `json:"filesystem"`
	Go          string `json:"go"` // that built the load generator
	OS          string `json:"os"`

	// SyncMicros are the median and the 99th percentile of a durable 4 KiB
	// write (pwrite and fdatasync) into a pre-written file.
	SyncMicros [2]float64 `json:"durable_4k_write_micros_p50_p99"`
}

// filesystems names the magic numbers of statfs that a data directory is
// likely to lie on.
var filesystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.TMPFS_MAGIC:           "tmpfs (memory: no durability)",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.F2FS_SUPER_MAGIC:      "f2fs",
	unix.NFS_SUPER_MAGIC:       "nfs",
	0x2fc12fc1:                 "zfs",
}

// Read collects the facts; dir is where the servers keep their data.
func Read(dir string) (Facts, error) {
	f := Facts{Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH, Processor: processor()}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return f, fmt.Errorf("uname: %w", err)
	}
	f.Kernel = unix.ByteSliceToString(uts.Sysname[:]) + " " + unix.ByteSliceToString(uts.Release[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return f, fmt.Errorf("sysinfo: %w", err)
	}
	f.MemoryBytes = int64(info.Totalram) * int64(info.Unit)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return f, fmt.Errorf("statfs of the data directory: %w", err)
	}
	f.Filesystem = filesystems[int64(st.Type)]
	if f.Filesystem == "" {
		f.Filesystem = fmt.Sprintf("unknown (%#x)", st.Type)
	}
	var err error
	f.SyncMicros, err = probeSync(dir)
	return f, err
}

// FreeBytes is what an unprivileged process may still write below dir.
func FreeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs of the data directory: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// processor is the model name of the first processor, if there is one.
func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

const (
	probeWrites = 200
	probeBytes  = 4096
)

// probeSync times durable writes. It takes well under a second on a disk that
// one would run etcd on.
func probeSync(dir string) (quantiles [2]float64, err error) {
	file, err := os.CreateTemp(dir, "bench-probe-")
	if err != nil {
		return quantiles, fmt.Errorf("probing the disk: %w", err)
	}
	defer os.Remove(filepath.Clean(file.Name()))
	defer file.Close()
	block := make([]byte, probeBytes)
	var micros []float64
	for round := range 2 { // the first writes the file, the second is timed
		for i := range int64(probeWrites) {
			began := time.Now()
			if _, err := file.WriteAt(block, i*probeBytes); err != nil {
				return quantiles, fmt.Errorf("probing the disk: %w", err)
			}
			if round == 0 && i < probeWrites-1 {
				continue
			}
			if err := unix.Fdatasync(int(file.Fd())); err != nil {
				return quantiles, fmt.Errorf("probing the disk: %w", err)
			}
			if round == 1 {
				micros = append(micros, float64(time.Since(began))/float64(time.Microsecond))
			}
		}
	}
	slices.Sort(micros)
	return [2]float64{micros[len(micros)/2], micros[len(micros)*99/100]}, nil
}
