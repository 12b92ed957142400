package main

import (
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sys/unix"
)

// newRegistry returns a registry with the process's own metrics; the parts add
// theirs.
func newRegistry(sink *asyncSink) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "os_fd_used", Help: "The number of used file descriptors.",
		}, usedDescriptors),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "os_fd_limit", Help: "The file descriptor limit.",
		}, descriptorLimit),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "quire_log_lines_dropped_total", Help: "Log lines that were dropped because the output was slow.",
		}, func() float64 { return float64(sink.dropped.Load()) }),
	)
	return reg
}

func usedDescriptors() float64 {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return float64(len(entries))
}

func descriptorLimit() float64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return float64(l.Cur)
}
