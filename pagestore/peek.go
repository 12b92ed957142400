package pagestore

import (
	"fmt"

	"quire/disk"
)

// Peek returns the newest checkpoint of a store at rest, nil if there is none, and
// changes nothing. It looks at manifest and state only: whatever else is damaged,
// these say whose store it is.
func Peek(fsys disk.FS) (*Checkpoint, error) {
	slots, err := readSlots(fsys)
	if err != nil {
		return nil, fmt.Errorf("look into page store: %w", err)
	}
	best, err := newest(slots)
	if err != nil {
		return nil, fmt.Errorf("look into page store: %w", err)
	}
	if best < 0 || !slots[best].m.committed {
		return nil, nil
	}
	m := slots[best].m
	state, err := readState(fsys, m.state)
	if err != nil {
		return nil, fmt.Errorf("look into page store: %w", err)
	}
	return &Checkpoint{Meta: m.meta, State: state, Sequence: m.sequence}, nil
}

// noteDamage tells the owner of damage that was found, and returns err.
func (s *Store) noteDamage(err error) error {
	if err != nil && s.opts.OnDamage != nil && isDamage(err) {
		s.opts.OnDamage(err)
	}
	return err
}
