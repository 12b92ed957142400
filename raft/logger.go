package raft

import (
	"strings"

	"go.uber.org/zap"
)

// raftLogger gives RawNode's log lines to zap. Panics of RawNode are broken
// invariants and stay panics.
type raftLogger struct {
	*zap.SugaredLogger
	outer *zap.SugaredLogger // names the caller of the methods here
}

func newRaftLogger(l *zap.Logger) raftLogger {
	return raftLogger{l.Sugar(), l.WithOptions(zap.AddCallerSkip(1)).Sugar()}
}

func (l raftLogger) Warning(v ...any)            { l.outer.Warn(v...) }
func (l raftLogger) Warningf(f string, v ...any) { l.outer.Warnf(f, v...) }

// Infof leaves out a line that RawNode writes for every second write: with
// writes in flight the log's answers repeat what is known.
func (l raftLogger) Infof(f string, v ...any) {
	if strings.HasSuffix(f, "missing from unstable log; ignoring") {
		l.outer.Debugf(f, v...)
		return
	}
	l.outer.Infof(f, v...)
}
