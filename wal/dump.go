package wal

import (
	"fmt"
	"io"
	"text/tabwriter"

	"quire/disk"
)

// Check reads the whole log, changes nothing, and tells what Open would find.
// Its errors are Open's. A directory without a log is no error: Fresh.
func Check(fsys disk.FS) (Recovery, error) {
	r, err := newReader(fsys, visitor{})
	if err != nil {
		return Recovery{}, named(err)
	}
	if _, _, err := r.run(); err != nil {
		return r.rec, named(err)
	}
	r.rec.Fresh = len(r.segs) == 0
	return r.rec, nil
}

// Replay reads the whole log and calls fn for each record, as Open does, and
// changes nothing. The record is valid during the call.
func Replay(fsys disk.FS, fn func(pos Pos, rec []byte) error) (Recovery, error) {
	r, err := newReader(fsys, visitor{record: fn})
	if err != nil {
		return Recovery{}, named(err)
	}
	if _, _, err := r.run(); err != nil {
		return r.rec, named(err)
	}
	r.rec.Fresh = len(r.segs) == 0
	return r.rec, nil
}

// Dump writes a table of the batches in the log, in order, and what its end is.
// It changes nothing. What is damaged is shown and returned as an error.
func Dump(fsys disk.FS, w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var last *segment
	show := func(seg *segment, off int64, h *batchHeader) {
		if seg != last {
			fmt.Fprintf(tw, "segment %s, %d bytes\n", seg.name, seg.sizeBytes)
			fmt.Fprintln(tw, "offset\tbatch\tincarnation\tdurable\tafter record\tframes\tbytes\thash\tbefore\tkind")
			last = seg
		}
		fmt.Fprintf(tw, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t%016x\t%016x\t%s\n",
			off, h.seq, h.incarnation, h.durable, h.pos, h.frames, h.payload, h.hash, h.prevHash, kindOf(h.flags))
	}
	r, err := newReader(fsys, visitor{batch: show})
	if err == nil {
		_, _, err = r.run()
	}
	if err != nil {
		fmt.Fprintf(tw, "refused: %v\n", named(err))
		return firstError(named(err), tw.Flush())
	}
	for _, seg := range r.segs[min(len(r.segs), r.rec.Segments):] {
		fmt.Fprintf(tw, "segment %s, %d bytes, ready\n", seg.name, seg.sizeBytes)
	}
	rec := &r.rec
	fmt.Fprintf(tw, "%d batches, records %d to %d, clean end: %v\n", rec.Batches, rec.FirstPos, rec.LastPos, rec.Clean)
	if rec.CutBatches > 0 {
		fmt.Fprintf(tw, "torn tail at offset %d of %s: %d batches, %d bytes\n", rec.CutOff, rec.CutFile, rec.CutBatches, rec.CutBytes)
	}
	if rec.PartialBytes > 0 {
		fmt.Fprintf(tw, "the end of a record is missing after its first %d bytes\n", rec.PartialBytes)
	}
	return tw.Flush()
}

func kindOf(flags uint16) string {
	switch {
	case flags&flagCut != 0:
		return "open, cut"
	case flags&flagOpen != 0:
		return "open"
	case flags&flagClose != 0:
		return "close"
	case flags&flagMark != 0:
		return "mark"
	}
	return "data"
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
