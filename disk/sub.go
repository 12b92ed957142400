package disk

import "errors"

// Sub returns the directory dir of fsys as an FS of its own; "" is fsys itself.
// Nothing need exist there yet. Errors name files as fsys does.
func Sub(fsys FS, dir string) FS {
	if dir == "" {
		return fsys
	}
	return sub{fsys, dir}
}

type sub struct {
	fsys FS
	dir  string
}

// below returns a name as the parent knows it. An invalid one stays invalid.
func (s sub) below(name string) string {
	if !validName(name) {
		return name
	}
	return s.dir + "/" + name
}

func (s sub) Create(name string, sizeBytes int64) (File, error) {
	return s.fsys.Create(s.below(name), sizeBytes)
}

func (s sub) Open(name string, mode Mode) (File, error) { return s.fsys.Open(s.below(name), mode) }

func (s sub) Rename(oldName, newName string) error {
	return s.fsys.Rename(s.below(oldName), s.below(newName))
}

func (s sub) Link(oldName, newName string) error {
	return s.fsys.Link(s.below(oldName), s.below(newName))
}

func (s sub) Remove(name string) error { return s.fsys.Remove(s.below(name)) }

func (s sub) List(dir string) ([]Info, error) {
	if dir == "" {
		return s.fsys.List(s.dir)
	}
	return s.fsys.List(s.below(dir))
}

// FreeSpace is for Room.
func (s sub) FreeSpace() (int64, error) {
	bytes, known := Room(s.fsys)
	if !known {
		return 0, errors.ErrUnsupported
	}
	return bytes, nil
}
