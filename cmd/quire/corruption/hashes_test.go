package corruption

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"quire/engine"
)

// messages are those of the log, with their level.
func (c *fakeCluster) messages() string {
	var all []string
	for _, e := range c.logs.All() {
		all = append(all, e.Level.String()+": "+e.Message)
	}
	return strings.Join(all, "\n")
}

func compacted(rev, before int64, hash uint32) []engine.CompactHash {
	return []engine.CompactHash{{Revision: rev, CompactRevision: before, Hash: hash}}
}

func TestInitial(t *testing.T) {
	for name, tc := range map[string]struct {
		set  func(c *fakeCluster)
		err  string
		says string
	}{
		"equal":              {func(*fakeCluster) {}, "", "info: initial corruption checking passed; no corruption"},
		"nobody answers":     {func(c *fakeCluster) { c.members[1].down, c.members[2].down = true, true }, "", "warn: failed hash kv request"},
		"another hash":       {func(c *fakeCluster) { c.members[2].hash = 5 }, "1 found data inconsistency with peers", "warn: found different hash values from remote peer"},
		"another compaction": {func(c *fakeCluster) { c.members[2].hash, c.members[2].compact = 5, 7 }, "", "warn: found different compact revision values from remote peer"},
		"the other lags":     {func(c *fakeCluster) { c.members[2].hashErr = engine.ErrFutureRev }, "", "warn: cannot fetch hash from slow remote peer"},
		"this one lags":      {func(c *fakeCluster) { c.members[2].hashErr = engine.ErrCompacted }, "", "warn: cannot fetch hash from remote peer; local member is behind"},
		"garbage": {func(c *fakeCluster) {
			c.members[1].answer = func([]byte) ([]byte, error) { return []byte("garbage"), nil }
		}, "", "warn: failed hash kv request"},
		"nothing":             {func(c *fakeCluster) { c.members[1].answer = func([]byte) ([]byte, error) { return nil, nil } }, "", "warn: failed hash kv request"},
		"this one cannot say": {func(c *fakeCluster) { c.members[0].hashErr = errors.New("disk") }, "1 failed to fetch hash (disk)", "info: starting initial corruption check"},
	} {
		c := newFake(3)
		tc.set(c)
		err := NewHashes(c.config()).Initial(t.Context())
		if got := fmt.Sprint(err); got != tc.err && (err != nil || tc.err != "") {
			t.Errorf("%s: %v, want %q", name, err, tc.err)
		}
		if !strings.Contains(c.messages(), tc.says) || len(c.alarms) > 0 {
			t.Errorf("%s: alarms %v, log\n%s", name, c.alarms, c.messages())
		}
	}
}

func TestPeriodic(t *testing.T) {
	for name, tc := range map[string]struct {
		set  func(c *fakeCluster)
		want []uint64
		says string
	}{
		"equal":              {func(*fakeCluster) {}, nil, "info: finished peer corruption check"},
		"down":               {func(c *fakeCluster) { c.members[1].down = true }, nil, "warn: failed hash kv request"},
		"another hash":       {func(c *fakeCluster) { c.members[2].hash = 5 }, []uint64{3}, "warn: same compact revision then hashes must match"},
		"two: one alarm":     {func(c *fakeCluster) { c.members[1].hash, c.members[2].hash = 4, 5 }, []uint64{2}, "warn: same compact revision then hashes must match"},
		"another compaction": {func(c *fakeCluster) { c.members[0].compact, c.members[2].hash, c.members[2].compact = 9, 5, 7 }, nil, "info: finished"},
		"a later compaction": {func(c *fakeCluster) { c.members[2].compact = 7 }, []uint64{3}, "warn: compact revision from follower must be less than or equal to leader's"},
		"a later revision":   {func(c *fakeCluster) { c.members[2].rev = 101 }, []uint64{3}, "warn: revision from follower must be less than or equal to leader's"},
		"the leader goes on meanwhile": {func(c *fakeCluster) {
			c.members[2].rev = 150
			c.confirm = func() error { c.members[0].rev, c.members[0].hash = 150, 77; return nil }
		}, nil, "info: finished"},
		"the leader's own hash changes": {func(c *fakeCluster) {
			c.confirm = func() error { c.members[0].hash = 77; return nil }
		}, []uint64{1}, "warn: found hash mismatch"},
	} {
		c := newFake(3)
		tc.set(c)
		if err := NewHashes(c.config()).Periodic(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := c.named(); !slices.Equal(got, tc.want) || !strings.Contains(c.messages(), tc.says) {
			t.Errorf("%s: alarms of %v, want %v, log\n%s", name, got, tc.want, c.messages())
		}
	}
	c := newFake(3)
	c.confirm = func() error { return errors.New("no leader") }
	c.members[1].hash = 5
	if err := NewHashes(c.config()).Periodic(t.Context()); err == nil || len(c.alarms) > 0 {
		t.Errorf("unconfirmed: %v, alarms %v", err, c.alarms)
	}
}

func TestCompactionHashes(t *testing.T) {
	three := func(hashes ...uint32) func(c *fakeCluster) {
		return func(c *fakeCluster) {
			for i, h := range hashes {
				c.members[i].compacted = compacted(50, 20, h)
			}
		}
	}
	for name, tc := range map[string]struct {
		set  func(c *fakeCluster)
		want []uint64
		says string
	}{
		"no compaction":      {func(*fakeCluster) {}, nil, "info: finished compaction hash check"},
		"equal":              {three(1, 1, 1), nil, "info: successfully checked hash on whole cluster"},
		"one differs":        {three(1, 1, 2), []uint64{3}, "error: Detected compaction hash mismatch"},
		"the leader differs": {three(2, 1, 1), []uint64{1}, "error: Detected compaction hash mismatch"},
		"all differ":         {three(1, 2, 3), []uint64{0}, "error: Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0"},
		"another compaction before": {func(c *fakeCluster) {
			three(1, 1, 2)(c)
			c.members[2].compacted[0].CompactRevision = 10
		}, nil, "warn: Skipped peer's hash"},
		"one is down": {func(c *fakeCluster) { three(1, 1, 2)(c); c.members[2].down = true }, nil, "warn: skipped revision in compaction hash check; was not able to check all peers"},
	} {
		c := newFake(3)
		tc.set(c)
		NewHashes(c.config()).Compaction(t.Context())
		if got := c.named(); !slices.Equal(got, tc.want) || !strings.Contains(c.messages(), tc.says) {
			t.Errorf("%s: alarms of %v, want %v, log\n%s", name, got, tc.want, c.messages())
		}
	}
}

// TestCompactionHashesOnce: what was equal everywhere is not compared again, what
// some members did not have is tried with an older one.
func TestCompactionHashesOnce(t *testing.T) {
	c := newFake(2)
	for _, m := range c.members {
		m.compacted = append(compacted(80, 50, 9), compacted(50, 20, 8)...)
	}
	c.members[1].compacted = c.members[1].compacted[1:]
	h := NewHashes(c.config())
	h.Compaction(t.Context())
	if h.checked != 50 || c.members[1].asked != 2 {
		t.Errorf("checked %d with %d questions", h.checked, c.members[1].asked)
	}
	c.members[1].compacted = c.members[0].compacted
	for range 3 {
		h.Compaction(t.Context())
	}
	if h.checked != 80 || c.members[1].asked != 3 {
		t.Errorf("checked %d with %d questions", h.checked, c.members[1].asked)
	}
}
