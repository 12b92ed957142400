package pagestore

import (
	"errors"
	"fmt"
	"io"

	"quire/disk"
)

// maxProblems bounds a Report; a disk full of damage is not worth more lines.
const maxProblems = 100

// Report is what Inspect found.
type Report struct {
	Problems []error  // each names file and offset
	Notes    []string // what a crash may leave behind and Open puts right
	Segments int
	Pages    int
	Records  uint64
	Bytes    int64 // verified
}

// Err joins the problems.
func (r *Report) Err() error { return errors.Join(r.Problems...) }

func (r *Report) problem(err error) {
	if err != nil && len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, err)
	}
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Check verifies every checksum and every invariant of a store at rest and
// returns all that is wrong, joined. It changes nothing. A directory without a
// store is fine.
func Check(fsys disk.FS) error { return Inspect(fsys).Err() }

// Inspect is Check with its numbers.
func Inspect(fsys disk.FS) *Report {
	r := &Report{}
	files, err := listFiles(fsys)
	if err != nil {
		r.problem(err)
		return r
	}
	slots, err := readSlots(fsys)
	if err != nil {
		r.problem(err)
		return r
	}
	best, err := newest(slots)
	if err != nil {
		r.problem(err)
		return r
	}
	if best < 0 {
		r.problem(mayStartFresh(slots, files))
		r.note("no checkpoint")
		return r
	}
	root := slots[best].m
	if other := slots[1-best]; other.m == nil {
		r.note("%s cannot be used, %s is: %v", slotNames[1-best], slotNames[best], other.err)
	} else if other.m.sequence != root.sequence {
		r.note("%s is an older checkpoint than %s", slotNames[1-best], slotNames[best])
	}
	r.problem(root.present(files))
	for _, name := range sorted(root.unnamed(files)) {
		r.note("%s is not part of the checkpoint", name)
	}
	if _, err := readState(fsys, root.state); err != nil {
		r.problem(err)
	}
	for _, e := range root.segments {
		r.segment(fsys, e)
	}
	return r
}

// segment verifies the pages of a segment and that its footer tells the same.
func (r *Report) segment(fsys disk.FS, e segmentEntry) {
	file, err := fsys.Open(segmentName(e.id), disk.ReadOnly)
	if err != nil {
		r.problem(err)
		return
	}
	defer file.Close()
	r.Segments++
	size, err := file.Size()
	if err != nil {
		r.problem(err)
		return
	}
	if want := e.fileEnd(); size > want {
		r.note("%s has %d bytes behind the checkpoint", segmentName(e.id), size-want)
	}
	at := place{file: segmentName(e.id), segment: e.id, epoch: e.epoch}
	records := r.records(file, at, e.end)
	if uint64(len(records)) != e.records {
		r.problem(at.corrupt("another number of records than the checkpoint has", e.records, uint64(len(records))))
	}
	r.Records += uint64(len(records))
	r.Bytes += e.end
	if e.footerEnd == 0 {
		return
	}
	at.off = e.end
	i := uint64(0)
	_, err = eachInFooter(file, at, e.footerEnd, func(l located) error {
		if i >= uint64(len(records)) || records[i] != l.spot {
			return at.corrupt("footer and pages differ at record", uint64(len(records)), i)
		}
		i++
		return nil
	})
	if err == nil && i != uint64(len(records)) {
		err = at.corrupt("footer has fewer records than the pages", uint64(len(records)), i)
	}
	r.problem(err)
	r.Bytes += e.footerEnd - e.end
}

// records verifies the pages up to end and returns where their records lie. It
// goes on behind a damaged page as far as it can find the next one.
func (r *Report) records(file disk.File, at place, end int64) []spot {
	var found []spot
	pages := pageReader{file: file, at: at, end: end}
	lost := false // looking for a page behind a damaged one
	for {
		start := pages.at
		page, h, err := pages.next()
		if err == io.EOF {
			return found
		}
		if err == nil && h.kind != kindRecords && h.kind != kindJumbo {
			err = start.corrupt("not a page of records", uint64(kindRecords), uint64(h.kind))
		}
		if err == nil {
			lost = false
			r.Pages++
			err = eachRecord(page, h, start, func(off int, rec []byte) error {
				ref := makeRef(at.segment, pageNo(start.off/unitBytes), off)
				found = append(found, spot{ref, len(rec), h.kind == kindJumbo})
				return nil
			})
		}
		if err != nil {
			if !lost {
				r.problem(err)
			}
			lost = true
			pages.at.off = start.off + unitBytes
		}
	}
}
