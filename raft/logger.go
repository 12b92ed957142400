package raft

import "go.uber.org/zap"

// raftLogger gives RawNode's log lines to zap. Panics of RawNode are broken
// invariants and stay panics.
type raftLogger struct{ *zap.SugaredLogger }

func (l raftLogger) Warning(v ...any)            { l.SugaredLogger.Warn(v...) }
func (l raftLogger) Warningf(f string, v ...any) { l.SugaredLogger.Warnf(f, v...) }
