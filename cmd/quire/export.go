package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"quire/engine"
)

const exportUsage = `Usage: quire export --data-dir DIR FILE [flags]

Writes a snapshot of a data directory that no server uses: the same file as
"etcdctl snapshot save" gets from a running one. "etcdutl snapshot restore" makes
an etcd data directory of it, "quire restore" one of ours.
`

// exportWait bounds the wait for the log to be applied. That takes a second for
// three million operations.
const exportWait = time.Minute

// export starts the member without any listener, so that what its log has behind
// the last checkpoint is in the snapshot, too.
func export(s *subrun) error {
	cfg := newConfig()
	newFlagSet(cfg) // fills the defaults
	s.StringVar(&cfg.DataDir, "data-dir", "", "data directory of a stopped server")
	s.StringVar(&cfg.WALDir, "wal-dir", "", "its log directory, if that lies elsewhere")
	args, err := s.parse(1, "one argument")
	if err != nil {
		return err
	}
	if cfg.DataDir == "" {
		return errors.New("--data-dir is required")
	}
	if _, err := os.Stat(cfg.storePath()); err != nil {
		return fmt.Errorf("%s holds no data of quire: %w", cfg.DataDir, err)
	}
	cfg.settle()
	cfg.existing = true
	ctx, cancel := context.WithTimeout(context.Background(), exportWait)
	defer cancel()
	m, err := openMember(ctx, cfg, surroundings{log: zap.NewNop(), reg: prometheus.NewRegistry(), offline: true})
	if err != nil {
		return err
	}
	// One of several members cannot tell alone what else of its log is committed.
	if len(m.engine.Members()) > 1 {
		err = m.awaitCommitted(ctx)
	} else {
		err = m.awaitApplied(ctx)
	}
	if err == nil {
		err = saveSnapshot(ctx, m.engine, args[0])
	}
	if err == nil {
		fmt.Fprintf(s.out, "exported revision %d to %s\n", m.engine.Revision(), args[0])
	}
	return errors.Join(err, m.close(ctx))
}

// saveSnapshot writes a snapshot with its checksum to a file that is not there.
func saveSnapshot(ctx context.Context, e *engine.Engine, path string) (err error) {
	snap, err := e.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer snap.Close()
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), io.NewSectionReader(snap, 0, snap.SizeBytes()))
	if err == nil {
		_, err = f.Write(sum.Sum(nil))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(part))
	}
	return err
}
