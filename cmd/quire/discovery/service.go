package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
)

// The errors are etcd's.
var (
	ErrInvalidURL   = errors.New("discovery: invalid peer URL")
	ErrBadSize      = errors.New("discovery: size key is bad")
	ErrSizeNotFound = errors.New("discovery: size key not found")
	ErrFull         = errors.New("discovery: cluster is full")
)

const (
	prefix = "/_etcd/registry"
	// pollInterval is how often a member that waits for others looks for them.
	pollInterval = 500 * time.Millisecond
	// firstPause doubles after each failed attempt until lastPause, as in etcd.
	firstPause = 2 * time.Second
	lastPause  = 256 * time.Second
)

// kv is the part of the API that is needed.
type kv interface {
	get(ctx context.Context, key string, withPrefix bool) (*pb.RangeResponse, error)
	put(ctx context.Context, key, value string) error
	close()
}

// registry is one token of a discovery service, as one member uses it.
type registry struct {
	kv    kv
	token string
	self  string // key of this member
	log   *zap.Logger
	pause time.Duration // after the next failure
}

// entry is a member that has registered.
type entry struct {
	key, value string
	created    int64
}

// Join registers this member, described as NAME=URL,…, waits for the others and
// returns all in the form of --initial-cluster. It gives up only when ctx ends or
// the registry refuses.
func Join(ctx context.Context, cfg Config, id uint64, self string, log *zap.Logger) (cluster string, err error) {
	c, err := open(cfg)
	if err != nil {
		return "", err
	}
	defer c.close()
	r := &registry{
		kv: c, token: cfg.Token, self: path.Join(prefix, cfg.Token, "members", strconv.FormatUint(id, 16)),
		log: log.With(zap.String("discovery-token", cfg.Token), zap.String("discovery-endpoints", strings.Join(cfg.Endpoints, ","))),
	}
	cluster, err = r.join(ctx, self)
	if err != nil {
		r.log.Warn("discovery failed to join cluster", zap.Error(err))
	} else {
		r.log.Info("discovery joined cluster successfully", zap.String("cluster", cluster))
	}
	return cluster, err
}

func (r *registry) join(ctx context.Context, self string) (string, error) {
	if _, _, err := r.look(ctx); err != nil {
		return "", err
	}
	err := r.insist(ctx, "register member itself", func(ctx context.Context) error { return r.kv.put(ctx, r.self, self) })
	if err != nil {
		return "", err
	}
	r.log.Info("register member itself successfully", zap.String("memberKey", r.self), zap.String("memberInfo", self))
	found := -1
	for {
		members, size, err := r.look(ctx)
		if err != nil {
			return "", err
		}
		if len(members) >= size {
			return listOf(members[:size])
		}
		if len(members) != found {
			found = len(members)
			r.log.Info("waiting for peers from discovery service", zap.Int("clusterSize", size), zap.Int("found-peers", found))
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// listOf joins what members have said of themselves.
func listOf(members []entry) (string, error) {
	var all []string
	for _, m := range members {
		for _, pair := range strings.Split(m.value, ",") {
			if name, u, ok := strings.Cut(pair, "="); !ok || name == "" || !strings.Contains(u, "://") {
				return "", fmt.Errorf("%w: %q", ErrInvalidURL, m.value)
			}
		}
		all = append(all, m.value)
	}
	return strings.Join(all, ","), nil
}

// look returns the members in the order in which they came, and how many there
// are to be. A cluster that is complete without this member is an error.
func (r *registry) look(ctx context.Context) (members []entry, size int, err error) {
	err = r.insist(ctx, "cluster status check", func(ctx context.Context) error {
		if size, err = r.size(ctx); err != nil {
			return err
		}
		members, err = r.members(ctx)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	at := slices.IndexFunc(members, func(e entry) bool { return e.key == r.self })
	if at >= size || at < 0 && len(members) >= size {
		return nil, 0, ErrFull
	}
	return members, size, nil
}

func (r *registry) size(ctx context.Context) (int, error) {
	resp, err := r.kv.get(ctx, path.Join(prefix, r.token, "_config/size"), false)
	if err != nil {
		return 0, err
	}
	if len(resp.Kvs) == 0 {
		return 0, ErrSizeNotFound
	}
	n, err := strconv.ParseInt(string(resp.Kvs[0].Value), 10, 0)
	if err != nil || n <= 0 {
		return 0, ErrBadSize
	}
	return int(n), nil
}

func (r *registry) members(ctx context.Context) (all []entry, err error) {
	resp, err := r.kv.get(ctx, path.Join(prefix, r.token, "members"), true)
	if err != nil {
		return nil, err
	}
	for _, kv := range resp.Kvs {
		e := entry{strings.TrimSpace(string(kv.Key)), strings.TrimSpace(string(kv.Value)), kv.CreateRevision}
		if !strings.ContainsRune(e.value, '=') {
			r.log.Warn("invalid peer info returned from discovery service", zap.String("memberKey", e.key), zap.String("memberInfo", e.value))
			continue
		}
		all = append(all, e)
	}
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Compare(a.created, b.created) })
	return all, nil
}

// insist repeats a request until it succeeds, is refused for good, or ctx ends.
func (r *registry) insist(ctx context.Context, what string, do func(context.Context) error) error {
	for {
		err := do(ctx)
		switch {
		case err == nil:
			r.pause = 0
			return nil
		case errors.Is(err, ErrSizeNotFound), errors.Is(err, ErrBadSize), ctx.Err() != nil:
			return err
		}
		r.pause = min(max(2*r.pause, firstPause), lastPause)
		r.log.Warn("retry connecting to discovery service", zap.String("reason", what), zap.Duration("backoff", r.pause), zap.Error(err))
		select {
		case <-time.After(r.pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
