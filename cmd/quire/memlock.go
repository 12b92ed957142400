package main

import (
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// lockMemory keeps the process's pages in memory, those to come as well, each
// from the moment that it is used: Go reserves far more addresses than it uses. A
// process that may not lock so much memory goes on without.
func lockMemory(log *zap.Logger) {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("cannot lock memory; --memory-mlock has no effect (see RLIMIT_MEMLOCK and CAP_IPC_LOCK)", zap.Error(err))
		return
	}
	log.Info("memory is locked")
}
