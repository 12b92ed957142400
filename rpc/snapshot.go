package rpc

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"

	pb "quire/api/etcdserverpb"
)

// SnapshotFile is a finished snapshot (engine.Snapshot).
type SnapshotFile interface {
	io.ReaderAt
	SizeBytes() int64
	Close()
}

const (
	// snapshotChunk is the blob of one message, as in etcd.
	snapshotChunk = 32 << 10
	// defaultSnapshotStall is generous: a client may be writing to a slow disk. But
	// the space that it holds here has to have an end.
	defaultSnapshotStall = 5 * time.Minute
)

// snapshotSession serves one Snapshot: the database in chunks, then its SHA-256.
type snapshotSession struct {
	stream  *Stream
	version string
	began   time.Time

	// Owned by Next.
	file SnapshotFile
	off  int64
	sum  hash.Hash

	stall   *time.Timer
	stalled atomic.Bool
}

func (s *Server) openSnapshot(st *Stream) Session { return &snapshotSession{stream: st} }

func (s *snapshotSession) Recv(msg []byte) error {
	return decode(&msg, &pb.SnapshotRequest{})
}

func (s *snapshotSession) RecvEnd() bool { return false }

// Next makes the file at its first call, which comes after Recv and takes as
// long as writing the file does.
func (s *snapshotSession) Next(out *Out) (Next, error) {
	if s.file == nil {
		if err := s.open(); err != nil {
			return NextEnd, err
		}
	}
	s.stall.Reset(s.stream.srv.cfg.SnapshotStall)
	next, err := s.chunk(out)
	if s.stalled.Load() {
		return NextEnd, errSnapshotStalled
	}
	return next, err
}

func (s *snapshotSession) open() error {
	cfg := &s.stream.srv.cfg
	s.version, s.began, s.sum = cfg.Upkeep.StorageVersion(), cfg.Clock.now(), sha256.New()
	file, err := cfg.OpenSnapshot(s.stream.Ctx)
	if err != nil {
		if s.stream.Ctx.Err() == nil {
			cfg.Logger.Warn("failed to make a database snapshot", zap.Error(err))
		}
		return err
	}
	s.file = file
	s.stall = time.AfterFunc(cfg.SnapshotStall, func() {
		s.stalled.Store(true)
		file.Close()
	})
	cfg.Logger.Info("sending database snapshot to client", s.size(), s.human(), zap.String("storage-version", s.version))
	return nil
}

func (s *snapshotSession) size() zap.Field { return zap.Int64("total-bytes", s.file.SizeBytes()) }
func (s *snapshotSession) human() zap.Field {
	return zap.String("size", humanBytes(s.file.SizeBytes()))
}

// chunk puts the next message into out; behind the last byte that is the sum.
func (s *snapshotSession) chunk(out *Out) (Next, error) {
	total := s.file.SizeBytes()
	if s.off == total {
		return s.last(out)
	}
	n := min(total-s.off, snapshotChunk)
	b := appendUint(out.begin(), 2, uint64(total-s.off-n))
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	at := len(b)
	b = append(b, make([]byte, n)...)
	if _, err := s.file.ReadAt(b[at:], s.off); err != nil {
		out.end(b[:headerRoom], headerRoom)
		return NextEnd, fmt.Errorf("snapshot at byte %d of %d: %w", s.off, total, err)
	}
	s.sum.Write(b[at:])
	s.off += n
	out.end(s.appendVersion(b), headerRoom)
	return NextMore, nil
}

func (s *snapshotSession) appendVersion(b []byte) []byte {
	b = protowire.AppendTag(b, 4, protowire.BytesType)
	return protowire.AppendString(b, s.version)
}

func (s *snapshotSession) last(out *Out) (Next, error) {
	log := s.stream.srv.cfg.Logger
	log.Info("sending database sha256 checksum to client", s.size(), zap.Int("checksum-size", s.sum.Size()))
	b := protowire.AppendTag(out.begin(), 3, protowire.BytesType)
	b = protowire.AppendBytes(b, s.sum.Sum(nil))
	out.end(s.appendVersion(b), headerRoom)
	log.Info("successfully sent database snapshot to client", s.size(), s.human(),
		zap.Duration("took", s.stream.srv.cfg.Clock.now().Sub(s.began)), zap.String("storage-version", s.version))
	return NextEnd, nil
}

func (s *snapshotSession) Close() {
	if s.file != nil {
		s.stall.Stop()
		s.file.Close()
	}
}

// humanBytes writes a size as etcd's logs do: two digits in powers of a thousand.
func humanBytes(n int64) string {
	if n < 10 {
		return fmt.Sprintf("%d B", n)
	}
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	e := math.Floor(math.Log(float64(n)) / math.Log(1000))
	v := math.Floor(float64(n)/math.Pow(1000, e)*10+0.5) / 10
	if v < 10 {
		return fmt.Sprintf("%.1f %s", v, units[int(e)])
	}
	return fmt.Sprintf("%.0f %s", v, units[int(e)])
}

// OpenSnapshotFunc adapts a function that returns a concrete file.
func OpenSnapshotFunc[F SnapshotFile](open func(context.Context) (F, error)) func(context.Context) (SnapshotFile, error) {
	return func(ctx context.Context) (SnapshotFile, error) {
		f, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
}
