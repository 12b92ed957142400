package durability

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"quire/test/harness"
)

var damages = flag.Int("damages", 40, "how many damaged data directories to start a server on")

const (
	blockBytes  = 4096 // of a template; blocks of zeroes are left out
	damagedPuts = 300
	// tailPuts is how many of the last acknowledged writes a damaged end of the log may take: as many batches as the log
	// keeps in flight, since a batch that is damaged and a batch that was never finished look the same.
	tailPuts = 4
)

// fixedPeer gives all these servers the same identity.
var fixedPeer = []string{"--initial-advertise-peer-urls", "http://127.0.0.1:9", "--initial-cluster", "default=http://127.0.0.1:9"}

// template is a data directory in memory: by file, the size and the blocks that are not zero.
type template map[string]*templateFile

type templateFile struct {
	sizeBytes int64
	blocks    map[int64][]byte
}

func readTemplate(t *testing.T, dir string) template {
	t.Helper()
	tm := template{}
	zero := make([]byte, blockBytes)
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f := &templateFile{sizeBytes: int64(len(data)), blocks: map[int64][]byte{}}
		for off := 0; off < len(data); off += blockBytes {
			if b := data[off:min(off+blockBytes, len(data))]; !bytes.Equal(b, zero[:len(b)]) {
				f.blocks[int64(off)] = slices.Clone(b)
			}
		}
		name, err := filepath.Rel(dir, path)
		tm[name] = f
		return err
	}))
	return tm
}

// write puts the template into a directory, with holes for the zeroes.
func (tm template) write(t *testing.T, dir string) {
	t.Helper()
	for name, f := range tm {
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
		check(t, err)
		check(t, out.Truncate(f.sizeBytes))
		for off, b := range f.blocks {
			_, err := out.WriteAt(b, off)
			check(t, err)
		}
		check(t, out.Close())
	}
}

// damagedStore makes a data directory with acknowledged puts of k000, k001 … at revisions 2, 3 …
func damagedStore(t *testing.T) template {
	t.Helper()
	s := harness.Start(t, append(fixedPeer, "--snapshot-count", "100")...)
	c, ctx := s.Client(t), harness.Context(t)
	for i := range damagedPuts {
		_, err := c.Put(ctx, damagedKey(i), damagedValue(i))
		check(t, err)
		switch i {
		case damagedPuts / 3:
			s.Kill()
			s.Restart(t)
		case damagedPuts * 2 / 3: // brings what was written so far into the store's own files
			_, err := c.Defragment(ctx, s.Endpoint)
			check(t, err)
		}
	}
	c.Close()
	s.Kill()
	return readTemplate(t, s.DataDir)
}

func damagedKey(i int) string   { return fmt.Sprintf("k%03d", i) }
func damagedValue(i int) string { return strings.Repeat(fmt.Sprint(i, " "), 200) }

// damage is one fault, and says what it is.
func damage(t *testing.T, random *rand.Rand, tm template, dir string) (file, what string) {
	t.Helper()
	var names []string
	for name, f := range tm {
		if len(f.blocks) > 0 && filepath.Base(name) != "LOCK" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	file = names[random.IntN(len(names))]
	f, path := tm[file], filepath.Join(dir, file)
	var offsets []int64
	for off := range f.blocks {
		offsets = append(offsets, off)
	}
	slices.Sort(offsets)
	block := offsets[random.IntN(len(offsets))]
	at := block + random.Int64N(int64(len(f.blocks[block])))
	switch random.IntN(8) {
	case 0:
		check(t, os.Remove(path))
		return file, "removed"
	case 1:
		check(t, os.Truncate(path, at))
		return file, fmt.Sprintf("cut at %d of %d", at, f.sizeBytes)
	case 2:
		at = at &^ 511
		patch(t, path, at, make([]byte, min(512, f.sizeBytes-at)))
		return file, fmt.Sprintf("512 bytes of zero at %d", at)
	default:
		bit := byte(1) << random.IntN(8)
		patch(t, path, at, []byte{f.blocks[block][at-block] ^ bit})
		return file, fmt.Sprintf("bit %08b flipped at %d", bit, at)
	}
}

func patch(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt(b, at)
	check(t, err)
	check(t, f.Close())
}

// TestDamagedFilesNeverGiveWrongAnswers is quire's own. A server on a damaged data directory either refuses to start,
// naming a file, or it has everything, or it has lost at most the very end of its log and says so.
func TestDamagedFilesNeverGiveWrongAnswers(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream serves damaged values")
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	tm := damagedStore(t)
	undamaged := t.TempDir()
	tm.write(t, undamaged)
	if outcome := startDamaged(t, undamaged); outcome != "all there" {
		t.Fatalf("without damage: %s", outcome)
	}
	counts := map[string]int{}
	for range *damages {
		dir := t.TempDir()
		tm.write(t, dir)
		file, what := damage(t, random, tm, dir)
		outcome := startDamaged(t, dir)
		counts[outcome]++
		t.Logf("%s %s: %s", file, what, outcome)
		if strings.HasPrefix(outcome, "WRONG") {
			t.Errorf("%s %s: %s", file, what, outcome)
		}
		check(t, os.RemoveAll(dir))
	}
	t.Log(counts)
}

// startDamaged starts a server on the directory and says what came of it.
func startDamaged(t *testing.T, dir string) string {
	t.Helper()
	s := harness.Launch(t, harness.Config{DataDir: dir, Flags: fixedPeer})
	defer s.Discard()
	if !s.Log.Wait("ready to serve client requests", 20*time.Second) {
		code, log := s.Exit(t), s.Log.String()
		if code <= 0 {
			return fmt.Sprintf("WRONG: exit code %d: %s", code, lastLine(log))
		}
		if !strings.Contains(log, ".wal") && !strings.Contains(log, ".pages") && !strings.Contains(log, "manifest") && !strings.Contains(log, "state") {
			return "WRONG: refused without naming a file: " + lastLine(log)
		}
		return "refused"
	}
	conn := s.Conn(t)
	defer conn.Close()
	resp, err := pb.NewKVClient(conn).Range(harness.Context(t), &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	if err != nil {
		if log := s.Log.String(); strings.Contains(log, ".pages") || strings.Contains(err.Error(), "corrupt") {
			return "refused a read"
		}
		return "WRONG: " + err.Error()
	}
	there := int(resp.GetHeader().GetRevision()) - 1
	if len(resp.Kvs) != there {
		return fmt.Sprintf("WRONG: %d keys at revision %d", len(resp.Kvs), there+1)
	}
	for i, kv := range resp.Kvs {
		if string(kv.Key) != damagedKey(i) || string(kv.Value) != damagedValue(i) || kv.ModRevision != int64(i+2) || kv.Version != 1 {
			return fmt.Sprintf("WRONG: key %d is %.100v", i, kv)
		}
	}
	switch lost := damagedPuts - there; {
	case lost == 0:
		return "all there"
	case lost > tailPuts:
		return fmt.Sprintf("WRONG: %d acknowledged writes are lost", lost)
	case !strings.Contains(s.Log.String(), `"level":"warn"`):
		return fmt.Sprintf("WRONG: the last %d writes are lost and nothing is said of it", lost)
	default:
		return "end of the log cut with a warning"
	}
}

func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return lines[len(lines)-1]
}

// TestCheckCommandFindsDamage is quire's own: "quire check" passes a sound directory, names the damaged file of another,
// and passes none with which a server would not have everything. (A damaged place that holds nothing may pass.)
func TestCheckCommandFindsDamage(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream has no such command")
	}
	tm := damagedStore(t)
	random := rand.New(rand.NewPCG(7, 0))
	run := func(dir string) (string, error) {
		out, err := exec.Command(harness.Binary(t), "check", dir).CombinedOutput()
		return string(out), err
	}
	sound := t.TempDir()
	tm.write(t, sound)
	if out, err := run(sound); err != nil {
		t.Fatalf("a sound directory: %v: %s", err, out)
	}
	for range 20 {
		dir := t.TempDir()
		tm.write(t, dir)
		file, what := damage(t, random, tm, dir)
		out, err := run(dir)
		if err != nil && !strings.Contains(out, filepath.Base(file)) && !strings.HasPrefix(what, "removed") {
			t.Errorf("%s %s: the file is not named: %s", file, what, out)
		}
		if outcome := startDamaged(t, dir); err == nil && outcome != "all there" {
			t.Errorf("%s %s: nothing is found, but a server says: %s", file, what, outcome)
		}
	}
}

// TestDumpCommand is quire's own: each format has a command that prints it.
func TestDumpCommand(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream has no such command")
	}
	dir := t.TempDir()
	damagedStore(t).write(t, dir)
	for kind, path := range map[string]string{"wal": "wal", "pages": "store", "manifest": "store"} {
		out, err := exec.Command(harness.Binary(t), "dump", kind, filepath.Join(dir, path)).CombinedOutput()
		if err != nil || len(out) < 100 {
			t.Errorf("dump %s: %v: %.500s", kind, err, out)
		}
	}
}
