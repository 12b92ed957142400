package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zapgrpc"
	"google.golang.org/grpc/grpclog"
	"gopkg.in/natefinch/lumberjack.v2"
)

// The words of --log-outputs that are not file names.
const (
	logDefault = "default"
	logStderr  = "stderr"
	logStdout  = "stdout"
	logJournal = "systemd/journal"
)

// encoderConfig is the form of etcd's log lines.
var encoderConfig = zapcore.EncoderConfig{
	TimeKey:       "ts",
	LevelKey:      "level",
	NameKey:       "logger",
	CallerKey:     "caller",
	MessageKey:    "msg",
	StacktraceKey: "stacktrace",
	LineEnding:    zapcore.DefaultLineEnding,
	EncodeLevel:   zapcore.LowercaseLevelEncoder,
	EncodeTime: func(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
		enc.AppendString(t.Format("2006-01-02T15:04:05.000000Z0700"))
	},
	EncodeDuration: zapcore.StringDurationEncoder,
	EncodeCaller:   zapcore.ShortCallerEncoder,
}

// logs is the process's log. Its sink belongs to it; Close flushes.
type logs struct {
	*zap.Logger
	sink *asyncSink
}

// openLogs opens the outputs and makes every library log through them.
func openLogs(c *Config) (*logs, error) {
	out, err := openOutputs(c)
	if err != nil {
		return nil, err
	}
	level, err := zapcore.ParseLevel(c.LogLevel)
	if err != nil {
		return nil, err
	}
	enc := zapcore.NewJSONEncoder(encoderConfig)
	if c.LogFormat == "console" {
		enc = zapcore.NewConsoleEncoder(encoderConfig)
	}
	sink := newAsyncSink(out)
	logger := zap.New(zapcore.NewCore(enc, sink, level), zap.AddCaller(), zap.ErrorOutput(sink))
	sink.report = func(n uint64) {
		logger.Warn("log lines were dropped because the log output is slow", zap.Uint64("dropped", n))
	}
	l := &logs{Logger: logger, sink: sink}
	grpclog.SetLoggerV2(grpcLogger{LoggerV2: zapgrpc.NewLogger(logger.Named("grpc")), verbose: c.LogLevel == "debug"})
	if _, err := zap.RedirectStdLogAt(logger, zapcore.InfoLevel); err != nil {
		return nil, err
	}
	return l, nil
}

// Close writes out what is queued.
func (l *logs) Close() { l.sink.close() }

// grpcLogger keeps grpc's own chatter out of the log unless it is being
// debugged. That includes its warnings: nearly all of them say that a client
// went away.
type grpcLogger struct {
	grpclog.LoggerV2
	verbose bool
}

func (g grpcLogger) Info(args ...any) {
	if g.verbose {
		g.LoggerV2.Info(args...)
	}
}

func (g grpcLogger) Infoln(args ...any) {
	if g.verbose {
		g.LoggerV2.Infoln(args...)
	}
}

func (g grpcLogger) Infof(format string, args ...any) {
	if g.verbose {
		g.LoggerV2.Infof(format, args...)
	}
}

func (g grpcLogger) Warning(args ...any) {
	if g.verbose {
		g.LoggerV2.Warning(args...)
	}
}

func (g grpcLogger) Warningln(args ...any) {
	if g.verbose {
		g.LoggerV2.Warningln(args...)
	}
}

func (g grpcLogger) Warningf(format string, args ...any) {
	if g.verbose {
		g.LoggerV2.Warningf(format, args...)
	}
}

// What grpc calls an error is mostly a client's doing and never this server's end.

func (g grpcLogger) Error(args ...any) { g.LoggerV2.Warning(args...) }

func (g grpcLogger) Errorln(args ...any) { g.LoggerV2.Warningln(args...) }

// Errorf drops what the JSON gateway says of every client that goes away before
// its answer has ended, which is how watches end.
func (g grpcLogger) Errorf(format string, args ...any) {
	for _, gone := range []string{"Failed to send", "Failed to write", "Failed to flush", "Failed to notify"} {
		if strings.HasPrefix(format, gone) && !g.verbose {
			return
		}
	}
	g.LoggerV2.Warningf(format, args...)
}

// openOutputs opens what --log-outputs names; several are written in turn.
func openOutputs(c *Config) (io.Writer, error) {
	var rotated string
	if c.LogRotation {
		name, err := rotationFile(c.LogOutputs)
		if err != nil {
			return nil, err
		}
		rotated = name
	}
	var outs []io.Writer
	for _, name := range c.LogOutputs {
		switch {
		case name == logDefault, name == logStderr, name == logJournal:
			outs = append(outs, os.Stderr) // journald reads a service's stderr
		case name == logStdout:
			outs = append(outs, os.Stdout)
		case name == rotated:
			r, err := parseRotation(c.LogRotateJSON)
			if err != nil {
				return nil, fmt.Errorf("--log-rotation-config-json: %w", err)
			}
			r.Filename = name
			outs = append(outs, r)
		default:
			f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				return nil, fmt.Errorf("--log-outputs: %w", err)
			}
			outs = append(outs, f)
		}
	}
	return io.MultiWriter(outs...), nil
}

var errRotation = errors.New("--log-outputs requires a single file path when --log-rotate-config-json is defined")

// rotationFile returns the one file among the outputs.
func rotationFile(outputs []string) (file string, err error) {
	for _, name := range outputs {
		switch name {
		case logDefault, logStderr, logStdout, logJournal:
			continue
		}
		if file != "" {
			return "", errRotation
		}
		file = name
	}
	if file == "" {
		return "", errRotation
	}
	return file, nil
}

func parseRotation(s string) (*lumberjack.Logger, error) {
	r := &lumberjack.Logger{}
	if err := json.Unmarshal([]byte(s), r); err != nil {
		return nil, fmt.Errorf("improperly formatted log rotation config: %w", err)
	}
	return r, nil
}
