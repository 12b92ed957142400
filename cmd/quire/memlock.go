package main

import (
	"errors"
	"math"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

var errLockLimit = errors.New("the limit of locked memory is finite, and every address that is reserved counts towards it")

// lockMemory keeps the process's pages in memory, those to come as well, each
// from the moment that it is used: Go reserves far more addresses than it uses.
// A process that may not lock as much as it likes goes on without: under a finite
// limit it would later fail to get memory at all.
func lockMemory(log *zap.Logger) {
	err := errLockLimit
	if mayLockAll() {
		err = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
	if err != nil {
		log.Warn("cannot lock memory; --memory-mlock has no effect (it needs CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK)", zap.Error(err))
		return
	}
	log.Info("memory is locked")
}

func mayLockAll() bool {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur == math.MaxUint64 {
		return true
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // 64 capabilities in two words
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}
