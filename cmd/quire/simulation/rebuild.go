package simulation

import (
	"context"
	"errors"

	"quire/disk"
	"quire/engine"
)

// errNotYet says that nobody can give a snapshot at the moment.
var errNotYet = errors.New("nobody can give a snapshot yet")

// damaged ends a member whose store is found damaged; its next run rebuilds it.
func (m *member) damaged(err error) {
	if !m.n.damaged {
		m.n.w.fail("member %d says that its store is damaged, but no bit has flipped: %v", m.n.id, err)
	}
	if len(m.engine.Members()) > 1 {
		m.end(errors.Join(err, engine.MarkDamaged(disk.Sub(m.n.disk, "store"))))
	}
}

// openStore opens the store, after it has been rebuilt if it is damaged.
func (m *member) openStore() (replaced bool, err error) {
	store := disk.Sub(m.n.disk, "store")
	marked, err := engine.IsMarkedDamaged(store)
	if err != nil {
		return false, err
	}
	if !marked {
		if m.engine, err = engine.Open(store, m.engineOptions()); !engine.IsDamage(err) {
			return false, err
		}
	}
	if !m.n.damaged {
		m.n.w.fail("the store of member %d is damaged, but no bit has flipped: %v", m.n.id, err)
	}
	remains, err := engine.LookInto(store)
	if err != nil {
		return false, err
	}
	if err := engine.MarkDamaged(store); err != nil {
		return false, err
	}
	if err := m.rebuild(remains, store); err != nil {
		return false, err
	}
	m.engine, err = engine.Open(store, m.engineOptions())
	return true, err
}

// rebuild takes the store of another member.
func (m *member) rebuild(remains *engine.Remains, store disk.FS) error {
	w := m.n.w
	from := w.up()
	if from == nil || from.engine.AppliedIndex() == 0 {
		return errNotYet
	}
	offers := from.engine.Transfers()
	index, term, _, ok := offers.Offer(remains.Applied)
	if !ok {
		return errNotYet
	}
	manifest, err := offers.Manifest(index, term)
	if err != nil {
		return errNotYet
	}
	defer offers.Release(index, term)
	failed := false
	err = remains.Rebuild(context.Background(), store, manifest, func(blob uint32, b []byte, off int64) (int, error) {
		if !w.passes(from.n, m.n) || w.faulty && w.percent(3) {
			failed = true
			return 0, errLine
		}
		n, err := offers.ReadAt(index, term, blob, b, off)
		failed = failed || err != nil
		from.n.look()
		return n, err
	})
	if err != nil && failed {
		return errNotYet
	}
	return err
}

// rebuilt notes that the store is sound again.
func (m *member) rebuilt() error {
	n := m.n
	if err := engine.UnmarkDamaged(disk.Sub(n.disk, "store")); err != nil {
		return err
	}
	n.damaged = false
	n.w.stats.Rebuilt++
	n.w.note("member %d has another store, of index %d", n.id, m.engine.AppliedIndex())
	return nil
}

// heal has a store rebuilt before the damage is found: when the faults have ended
// nothing may be left of them.
func (n *machine) heal() {
	if n.m != nil {
		n.crash("to be rebuilt", true)
	}
	n.w.check(engine.MarkDamaged(disk.Sub(n.disk, "store")), "mark")
}
