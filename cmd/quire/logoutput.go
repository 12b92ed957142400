package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
	"gopkg.in/natefinch/lumberjack.v2"
)

// The words of --log-outputs that are not file names.
const (
	logDefault = "default"
	logStderr  = "stderr"
	logStdout  = "stdout"
	logJournal = "systemd/journal"
)

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
		case name == logDefault, name == logStderr:
			outs = append(outs, os.Stderr)
		case name == logJournal:
			if !journal.Enabled() {
				return nil, errors.New("--log-outputs: can't find journal")
			}
			outs = append(outs, journalWriter{fallback: os.Stderr})
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
	err := json.Unmarshal([]byte(s), r)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		err = fmt.Errorf("improperly formatted log rotation config: %w", err)
	case errors.As(err, &kind):
		err = fmt.Errorf("invalid log rotation config: %w", err)
	case err != nil:
		err = fmt.Errorf("fail to unmarshal log rotation config: %w", err)
	}
	return r, err
}

// journalWriter sends each line to systemd's journal with the priority of its
// level. A line that the journal does not take goes to fallback.
type journalWriter struct{ fallback io.Writer }

var journalPriorities = map[string]journal.Priority{
	"debug": journal.PriDebug, "info": journal.PriInfo, "warn": journal.PriWarning, "error": journal.PriErr,
	"dpanic": journal.PriCrit, "panic": journal.PriCrit, "fatal": journal.PriCrit,
}

// Write implements io.Writer; p holds whole lines.
func (w journalWriter) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		text, priority, fields := journalEntry(line)
		if journal.Send(text, priority, fields) != nil {
			_, _ = w.fallback.Write(line)
		}
	}
	return len(p), nil
}

// journalEntry is a line as etcd gives it to the journal.
func journalEntry(line []byte) (text string, priority journal.Priority, fields map[string]string) {
	var l struct{ Level, Caller string }
	priority = journal.PriInfo
	if json.Unmarshal(line, &l) == nil { // console lines are no JSON
		if p, ok := journalPriorities[l.Level]; ok {
			priority = p
		}
	}
	return strings.TrimSuffix(string(line), "\n"), priority, map[string]string{
		"PACKAGE": filepath.Dir(l.Caller), "SYSLOG_IDENTIFIER": filepath.Base(os.Args[0]),
	}
}
