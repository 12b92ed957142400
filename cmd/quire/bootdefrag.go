package main

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"
	"go.uber.org/zap"
)

// maybeDefragment defragments the store before anything else happens, if
// --bootstrap-defrag-threshold-megabytes or more can be gained. Nobody waits for
// the outcome of a defragmentation here, but space comes back sooner.
func (m *member) maybeDefragment(ctx context.Context) error {
	if m.cfg.DefragThresholdMB == 0 {
		return nil
	}
	threshold := uint64(m.cfg.DefragThresholdMB) << 20
	size, inUse := m.engine.DBSize()
	if uint64(max(size-inUse, 0)) < threshold {
		m.log.Info("Skipping defragmentation",
			zap.Int64("current-db-size-bytes", size), zap.String("current-db-size", humanize.Bytes(uint64(size))),
			zap.Int64("current-db-size-in-use-bytes", inUse), zap.String("current-db-size-in-use", humanize.Bytes(uint64(inUse))),
			zap.Uint64("bootstrap-defrag-threshold-bytes", threshold), zap.String("bootstrap-defrag-threshold", humanize.Bytes(threshold)))
		return nil
	}
	m.log.Info("starting defragment")
	if err := m.engine.Defragment(ctx); err != nil {
		return fmt.Errorf("--bootstrap-defrag-threshold-megabytes: %w", err)
	}
	after, _ := m.engine.DBSize()
	m.log.Info("finished defragment", zap.Int64("db-size-bytes-before", size), zap.Int64("db-size-bytes-after", after))
	return nil
}
