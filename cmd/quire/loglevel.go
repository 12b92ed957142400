package main

import (
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logLevel is the level of the log, which can be changed while the server runs:
// by signal (SIGUSR1: debug, SIGUSR2: as configured), which the kernel permits to
// the server's user only, and over HTTP, which is served with --enable-pprof.
type logLevel struct {
	now        zap.AtomicLevel
	configured zapcore.Level
	log        *zap.Logger
}

func newLogLevel(name string) (*logLevel, error) {
	level, err := zapcore.ParseLevel(name)
	if err != nil {
		return nil, err
	}
	return &logLevel{now: zap.NewAtomicLevelAt(level), configured: level}, nil
}

// set changes the level and says so while the line can be seen: before the log
// becomes quieter, after it has become louder.
func (l *logLevel) set(level zapcore.Level, by string) {
	before := l.now.Level()
	say := func(at zapcore.Level) {
		at = min(max(at, zapcore.InfoLevel), zapcore.ErrorLevel) // above it zap ends the process
		l.log.Log(at, "log level changed", zap.String("from", before.String()), zap.String("to", level.String()), zap.String("by", by))
	}
	if level > before {
		say(before)
	}
	l.now.SetLevel(level)
	if level <= before {
		say(level)
	}
}

// followSignals changes the level by signal until stop is called.
func (l *logLevel) followSignals() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range signals {
			if sig == syscall.SIGUSR1 {
				l.set(zapcore.DebugLevel, "SIGUSR1")
			} else {
				l.set(l.configured, "SIGUSR2")
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

// levelRequestBytes is ample for {"level":"debug"}.
const levelRequestBytes = 1 << 10

// ServeHTTP implements http.Handler: GET shows the level as {"level":"info"}, PUT
// sets it.
func (l *logLevel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, levelRequestBytes)
	before := l.now.Level()
	l.now.ServeHTTP(w, r)
	if after := l.now.Level(); after != before {
		l.now.SetLevel(before)
		l.set(after, r.RemoteAddr)
	}
}
