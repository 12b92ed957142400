package watchfanout

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	pb "quire/api/etcdserverpb"
)

var updateFlag = flag.Bool("update", false, "write what the hub answers into testdata/semantics.txt")

// TestSemantics replays transcripts recorded from etcd.
func TestSemantics(t *testing.T) {
	text, err := os.ReadFile("testdata/semantics.txt")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &script{rig: newRig(t, Options{})}
		s.client = s.open()
		var out bytes.Buffer
		for block := range strings.SplitSeq(strings.TrimRight(string(text), "\n"), "\n\n") {
			commands, expected, ok := strings.Cut(block+"\n", "----\n")
			if !ok { // comment
				out.WriteString(block + "\n\n")
				continue
			}
			for line := range strings.Lines(commands) {
				s.run(strings.TrimSuffix(line, "\n"))
				synctest.Wait()
			}
			got := s.answers()
			if got != expected && !*updateFlag {
				t.Errorf("after\n%sgot:\n%swant:\n%s", commands, got, expected)
			}
			out.WriteString(commands + "----\n" + got + "\n")
		}
		if *updateFlag {
			if err := os.WriteFile("testdata/semantics.txt", append(bytes.TrimRight(out.Bytes(), "\n"), '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// script runs the commands of a transcript.
type script struct {
	*rig
	client *client
}

func (s *script) answers() string {
	got := s.client.drain()
	slices.SortStableFunc(got, func(a, b *pb.WatchResponse) int { return int(a.WatchId - b.WatchId) })
	var b strings.Builder
	for _, r := range got {
		b.WriteString(show(r) + "\n")
	}
	return b.String()
}

func (s *script) run(line string) {
	words := strings.Fields(line)
	for i, w := range words {
		words[i] = s.unquote(w)
	}
	switch words[0] {
	case "put":
		s.txn(put(words[1], words[2]))
	case "del":
		s.txn(del(words[1]))
	case "txn":
		var ops []op
		for _, w := range words[1:] {
			kind, rest, _ := strings.Cut(w, ":")
			key, value, _ := strings.Cut(rest, ":")
			ops = append(ops, op{key: key, value: value, del: kind == "del"})
		}
		s.txn(ops...)
	case "compact":
		s.m.compactTo(s.number(words[1]))
	case "create":
		s.client.create(s.request(words[1], words[2:]))
	case "cancel":
		if err := s.client.s.Cancel(s.number(words[1])); err != nil {
			s.t.Fatal(err)
		}
	case "progress":
		if err := s.client.s.Progress(); err != nil {
			s.t.Fatal(err)
		}
	default:
		s.t.Fatalf("command %q", line)
	}
}

func (s *script) request(key string, options []string) *pb.WatchCreateRequest {
	req := &pb.WatchCreateRequest{Key: []byte(key)}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		value = s.unquote(value)
		switch name {
		case "end":
			req.RangeEnd = []byte(value)
		case "start":
			req.StartRevision = s.number(value)
		case "id":
			req.WatchId = s.number(value)
		case "prev":
			req.PrevKv = true
		case "fragment":
			req.Fragment = true
		case "noput":
			req.Filters = append(req.Filters, pb.WatchCreateRequest_NOPUT)
		case "nodelete":
			req.Filters = append(req.Filters, pb.WatchCreateRequest_NODELETE)
		default:
			s.t.Fatalf("option %q", o)
		}
	}
	return req
}

func (s *script) unquote(w string) string {
	if !strings.HasPrefix(w, `"`) {
		return w
	}
	u, err := strconv.Unquote(w)
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

func (s *script) number(w string) int64 {
	n, err := strconv.ParseInt(w, 10, 64)
	if err != nil {
		s.t.Fatal(fmt.Errorf("%q: %w", w, err))
	}
	return n
}
