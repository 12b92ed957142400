package disk

import "testing"

// BenchmarkDurableWrite measures one durable 4 KiB write at a time into a file
// filled before: in the goroutine itself, and through each queue.
func BenchmarkDurableWrite(b *testing.B) {
	const blocks = 2048
	for _, opts := range []Options{{}, {NoUring: true}} {
		d := openDir(b, opts)
		f, err := d.Create("f", blocks*Align)
		if err != nil {
			b.Fatal(err)
		}
		if f, err = d.Open("f", Direct); err != nil {
			b.Fatal(err)
		}
		buf := AlignedBuf(Align)
		defer FreeBuf(buf)
		if opts.NoUring {
			b.Run("inline", func(b *testing.B) {
				for i := range b.N {
					if err := f.WriteAt(buf, int64(i%blocks)*Align); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(d.Engine(), func(b *testing.B) {
			q, err := d.NewQueue(1)
			if err != nil {
				b.Fatal(err)
			}
			var done [1]Completion
			b.ReportAllocs()
			for i := range b.N {
				if err := q.Submit(Write{File: f, Buf: buf, Off: int64(i%blocks) * Align}); err != nil {
					b.Fatal(err)
				}
				if _, err := q.Wait(done[:]); err != nil || done[0].Err != nil {
					b.Fatal(err, done[0].Err)
				}
			}
			if err := q.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
