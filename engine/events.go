package engine

import (
	"quire/index"
	"quire/pagestore"
)

// historyRevs bounds how many revisions are looked up in one hold of the
// index's read lock.
const historyRevs = 128

// Bounds returns the compact revision and the newest revision.
func (e *Engine) Bounds() (compactRev, rev int64) {
	k := e.keys()
	return k.compactRev.Load(), k.visible.Load()
}

// Events appends the events of whole revisions from the revision from on, until
// they hold maxBytes or the newest revision is reached; at least one revision if
// there is any. next is the first revision not returned. ErrCompacted if from
// lies below the compact revision.
func (e *Engine) Events(dst []Event, from int64, maxBytes int, wantPrev bool) (evs []Event, next int64, err error) {
	if err := e.servable(); err != nil {
		return dst, from, err
	}
	k, pin := e.read()
	defer pin.Release()
	rev := k.visible.Load()
	start := len(dst)
	bytes := 0
	var buf []index.Event
	for next = from; next <= rev && (bytes < maxBytes || len(dst) == start); {
		buf, next, err = k.idx.Events(buf[:0], next, rev, historyRevs)
		if err != nil {
			return dst[:start], from, ErrCompacted
		}
		for i := range buf {
			if i > 0 && bytes >= maxBytes && buf[i].Main != buf[i-1].Main {
				next = buf[i].Main
				break
			}
			var n int
			if dst, n, err = k.appendEvent(dst, &buf[i], wantPrev); err != nil {
				return dst[:start], from, err
			}
			bytes += n
		}
		if len(buf) == 0 {
			break
		}
	}
	// A compaction may have taken previous values, or revisions, meanwhile.
	if k.compactRev.Load() > from {
		return dst[:start], from, ErrCompacted
	}
	return dst, next, nil
}

func (k *keyspace) appendEvent(dst []Event, ev *index.Event, wantPrev bool) ([]Event, int, error) {
	rec, err := k.store.Read(pagestore.Ref(ev.Loc))
	if err != nil {
		return dst, 0, err
	}
	kv := wireKV(rec)
	out := Event{Main: ev.Main, Sub: ev.Sub, Delete: ev.Tombstone, Created: ev.Created, Key: keyOf(kv), KV: kv}
	if wantPrev && ev.PrevLoc != 0 {
		prev, err := k.store.Read(pagestore.Ref(ev.PrevLoc))
		if err != nil {
			return dst, 0, err
		}
		out.Prev = wireKV(prev)
		var d keyValue
		if err := decodeKV(out.Prev, &d); err != nil {
			return dst, 0, err
		}
		if d.mod == ev.Main { // written twice in one transaction
			if out.Prev, err = k.valueAt(out.Key, ev.Main-1); err != nil {
				return dst, 0, err
			}
		}
	}
	return append(dst, out), len(kv) + len(out.Prev), nil
}

// valueAt returns the KeyValue of key as of a revision, nil if there is none.
func (k *keyspace) valueAt(key []byte, rev int64) ([]byte, error) {
	v, ok := k.idx.Get(key, rev)
	if !ok {
		return nil, nil
	}
	rec, err := k.store.Read(pagestore.Ref(v.Loc))
	if err != nil {
		return nil, err
	}
	return wireKV(rec), nil
}
