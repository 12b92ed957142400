package wal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"quire/disk"
)

// killRecord is the content of record pos.
func killRecord(pos Pos) []byte {
	rec := bytes.Repeat([]byte{byte(pos)}, int(8+pos*7919%3000))
	binary.LittleEndian.PutUint64(rec, uint64(pos))
	return rec
}

// TestKill kills a process that appends to a real directory, again and again,
// and checks that what it had told as durable is there.
func TestKill(t *testing.T) {
	const env = "QUIRE_TEST_KILL"
	if path := os.Getenv(env); path != "" {
		killChild(t, path, os.Getenv(env+"_NOURING") != "")
		return
	}
	eachEngine(t, func(t *testing.T, opts disk.Options) {
		path := t.TempDir()
		var acked Pos
		for i := range 6 {
			cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
			cmd.Env = append(os.Environ(), env+"="+path)
			if opts.NoUring {
				cmd.Env = append(cmd.Env, env+"_NOURING=1")
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for n := 0; lines.Scan(); n++ {
				if n == 0 {
					time.AfterFunc(time.Duration(10+i*17)*time.Millisecond, func() { _ = cmd.Process.Kill() })
				}
				word, ok := strings.CutPrefix(lines.Text(), "durable ")
				pos, err := strconv.Atoi(word)
				if !ok || err != nil {
					t.Fatalf("child: %q", lines.Text())
				}
				acked = Pos(pos)
			}
			_ = cmd.Wait() // it was killed
			d := openDir(t, path, disk.Options{ReadOnly: true})
			rec, err := Replay(d, func(pos Pos, rec []byte) error {
				if !bytes.Equal(rec, killRecord(pos)) {
					return fmt.Errorf("record %d has wrong content", pos)
				}
				return nil
			})
			if err != nil || rec.LastPos < acked {
				t.Fatalf("%d was durable: %+v, %v", acked, rec, err)
			}
			d.Close()
		}
		if acked < 100 {
			t.Fatalf("only %d records", acked)
		}
		t.Logf("%d records", acked)
	})
}

func killChild(t *testing.T, path string, noUring bool) {
	d := openDir(t, path, disk.Options{NoUring: noUring})
	l, _, err := Open(d, Options{SegmentBytes: 256 << 10, MaxBatchBytes: 16 << 10}, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			pos, err := l.Wait()
			if err != nil {
				panic(err)
			}
			fmt.Printf("durable %d\n", pos)
		}
	}()
	for next := l.Durable() + 1; ; next++ {
		pos, err := l.Append(killRecord(next))
		if err != nil || pos != next {
			t.Fatal(pos, err)
		}
		if err := l.Submit(1, false); err != nil {
			t.Fatal(err)
		}
		if next%500 == 0 {
			if err := l.TrimBefore(l.Durable() / 2); err != nil {
				t.Fatal(err)
			}
		}
	}
}
