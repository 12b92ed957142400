package main

import (
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zapgrpc"
	"google.golang.org/grpc/grpclog"
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
	level *logLevel
	sink  *asyncSink
}

// openLogs opens the outputs and makes every library log through them.
func openLogs(c *Config) (*logs, error) {
	out, err := openOutputs(c)
	if err != nil {
		return nil, err
	}
	level, err := newLogLevel(c.LogLevel)
	if err != nil {
		return nil, err
	}
	enc := zapcore.NewJSONEncoder(encoderConfig)
	if c.LogFormat == "console" {
		enc = zapcore.NewConsoleEncoder(encoderConfig)
	}
	sink := newAsyncSink(out)
	logger := zap.New(zapcore.NewCore(enc, sink, level.now), zap.AddCaller(), zap.ErrorOutput(sink))
	sink.report = func(n uint64) {
		logger.Warn("log lines were dropped because the log output is slow", zap.Uint64("dropped", n))
	}
	level.log = logger
	l := &logs{Logger: logger, level: level, sink: sink}
	grpclog.SetLoggerV2(grpcLogger{LoggerV2: zapgrpc.NewLogger(logger.Named("grpc")), level: level.now})
	// A frame-by-frame trace (GODEBUG=http2debug=2) is read by people and tools as
	// etcd prints it: plain lines on standard error.
	if !strings.Contains(os.Getenv("GODEBUG"), "http2debug=") {
		if _, err := zap.RedirectStdLogAt(logger, zapcore.InfoLevel); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// newFaultLog is for a process that ends before its log is set up.
func newFaultLog(w io.Writer) *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(encoderConfig), zapcore.Lock(zapcore.AddSync(w)), zapcore.InfoLevel), zap.AddCaller())
}

// Close writes out what is queued.
func (l *logs) Close() { l.sink.close() }
