package peer

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func randomMessage(rnd *rand.Rand) *raftpb.Message {
	num := func() *uint64 {
		switch rnd.IntN(4) {
		case 0:
			return nil
		case 1:
			return new(uint64(0))
		}
		return new(rnd.Uint64() >> rnd.IntN(64))
	}
	m := &raftpb.Message{
		Type: raftpb.MessageType(rnd.IntN(24)).Enum(), From: new(uint64(1)), To: new(uint64(2)),
		Term: num(), LogTerm: num(), Index: num(), Commit: num(), Vote: num(), RejectHint: num(),
	}
	if rnd.IntN(3) == 0 {
		m.Reject = new(true)
	}
	if rnd.IntN(3) == 0 {
		m.Context = make([]byte, rnd.IntN(40))
	}
	if rnd.IntN(5) == 0 {
		m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: new(uint64(7)), Term: new(uint64(3)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 1 << 63}, Learners: []uint64{4}},
		}}
	}
	for range rnd.IntN(4) {
		size := []int{0, 1, 100, spliceBytes - 1, spliceBytes, 3 * spliceBytes}[rnd.IntN(6)]
		e := &raftpb.Entry{Type: raftpb.EntryType(2 * rnd.IntN(2)).Enum(), Term: new(rnd.Uint64()), Index: new(rnd.Uint64())}
		if size > 0 {
			e.Data = make([]byte, size)
			for i := range e.Data {
				e.Data[i] = byte(rnd.Uint32())
			}
		}
		m.Entries = append(m.Entries, e)
	}
	return m
}

// wire returns what an outbox writes.
func wire(o *outbox) []byte { return bytes.Join(o.vectors(), nil) }

func TestMessageRoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 5000 {
		m := randomMessage(rnd)
		o := &outbox{whole: i%2 == 0}
		o.addMessage(m)
		b := wire(o)
		if len(b) != o.bytes || len(b) > messageBytes(m) {
			t.Fatalf("%d bytes written, %d counted, %d foreseen", len(b), o.bytes, messageBytes(m))
		}
		h, err := readHead(b, maxBulkFrame)
		if err != nil || h.typ != frameMessage || int(h.length) != len(b)-headBytes {
			t.Fatalf("head %+v, %v", h, err)
		}
		if err := h.check(b, b[headBytes:]); err != nil {
			t.Fatal(err)
		}
		got, err := decodeMessage(b[headBytes:], 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, m) {
			t.Fatalf("got %v\nwant %v", got, m)
		}
	}
}

func TestOutboxKeepsOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		o := &outbox{}
		var want []byte
		for range 1 + rnd.IntN(20) {
			if rnd.IntN(3) == 0 {
				body := make([]byte, rnd.IntN(50))
				o.addFrame(framePing, body)
				want = appendFrame(want, framePing, body)
				continue
			}
			m := randomMessage(rnd)
			one := &outbox{}
			one.addMessage(m)
			want = append(want, wire(one)...)
			o.addMessage(m)
		}
		if got := wire(o); !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, want %d", len(got), len(want))
		}
		// The same in pieces as a socket may take them.
		v, got := o.vectors(), []byte(nil)
		for len(v) > 0 {
			var first [][]byte
			first, v = chunk(v, 1+rnd.IntN(3*spliceBytes))
			n := 1 + rnd.IntN(total(first))
			got = append(got, bytes.Join(first, nil)[:n]...)
			v = append(dropFront(first, n), v...)
		}
		if !bytes.Equal(got, want) {
			t.Fatal("pieces are not the whole")
		}
		o.reset()
		if !o.empty() || len(wire(o)) != 0 {
			t.Fatal("not empty after reset")
		}
	}
}

func TestGreetingRoundTrip(t *testing.T) {
	h := hello{min: 1, max: 3, kind: bulk, cluster: 1 << 63, from: 5, to: 6, serverVersion: "3.7.1", peerURLs: []string{"http://a:1", "http://b:2"}}
	var got hello
	if err := got.decode(append(h.encode(), "what a later version adds"...)); err != nil {
		t.Fatal(err)
	}
	if got.min != 1 || got.max != 3 || got.kind != bulk || got.cluster != h.cluster || got.from != 5 || got.to != 6 ||
		got.serverVersion != h.serverVersion || len(got.peerURLs) != 2 || got.peerURLs[1] != "http://b:2" {
		t.Errorf("%+v", got)
	}
	w := welcome{refusal: refusedRemoved, version: 1, cluster: 9, id: 8, serverVersion: "x"}
	var back welcome
	if err := back.decode(w.encode()); err != nil || back != w {
		t.Errorf("%+v, %v", back, err)
	}
	for n := range len(h.encode()) {
		if (&hello{}).decode(h.encode()[:n]) == nil {
			t.Errorf("a hello cut at %d is accepted", n)
		}
	}
	for _, tc := range []struct{ min, max, want uint64 }{{1, 1, 1}, {1, 9, 1}, {0, 0, 0}, {2, 9, 0}} {
		if got := commonVersion(&hello{min: tc.min, max: tc.max}); got != tc.want {
			t.Errorf("versions %d–%d: %d", tc.min, tc.max, got)
		}
	}
}

const (
	goldenMessage = "1300000003000000ac3737f4abc9553b030f010504ac02ab02010005ad020464617461"
	goldenHello   = "f171756972650d0a2d000000010000004cad813510c4778201010107000000000000000100000000000000020000000000000005332e372e31010a687474703a2f2f613a31"
	goldenRequest = "030000000000000009dc05000061736b"
	goldenAnswer  = "030000000000000000796573"
	goldenError   = "0300000000000000016e6f"
)

// TestGoldenFrames holds version 1 of the protocol fast.
func TestGoldenFrames(t *testing.T) {
	o := &outbox{}
	o.addMessage(&raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(5)), LogTerm: new(uint64(4)),
		Index: new(uint64(300)), Commit: new(uint64(299)), Entries: []*raftpb.Entry{{Term: new(uint64(5)), Index: new(uint64(301)), Data: []byte("data")}},
	})
	h := hello{min: 1, max: 1, kind: control, cluster: 7, from: 1, to: 2, serverVersion: "3.7.1", peerURLs: []string{"http://a:1"}}
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"message", wire(o), goldenMessage},
		{"hello", appendFrame([]byte(magic), frameHello, h.encode()), goldenHello},
		{"request", appendRequest(nil, 3, 9, 1500e6, []byte("ask")), goldenRequest},
		{"answer", joined(responseParts(3, []byte("yes"), nil)), goldenAnswer},
		{"refused answer", joined(responseParts(3, nil, errors.New("no"))), goldenError},
	} {
		if got := hexOf(tc.got); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}

func FuzzMessage(f *testing.F) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		o := &outbox{}
		o.addMessage(randomMessage(rnd))
		f.Add(wire(o)[headBytes:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := decodeMessage(body, 1, 2)
		if err != nil {
			if !errors.Is(err, errFrame) {
				t.Fatalf("error %v", err)
			}
			return
		}
		// What is accepted means one thing only.
		o := &outbox{}
		o.addMessage(m)
		again, err := decodeMessage(wire(o)[headBytes:], 1, 2)
		if err != nil || !proto.Equal(again, m) {
			t.Fatalf("%v became %v, %v", m, again, err)
		}
	})
}

func FuzzGreeting(f *testing.F) {
	f.Add((&hello{min: 1, max: 1, kind: control, peerURLs: []string{"http://a:1"}}).encode())
	f.Add((&welcome{version: 1, serverVersion: "3.7.1"}).encode())
	f.Fuzz(func(t *testing.T, body []byte) {
		_ = (&hello{}).decode(body)
		_ = (&welcome{}).decode(body)
	})
}

// FuzzStream: whatever comes in whatever pieces, the reader gives only frames
// with the right hash.
func FuzzStream(f *testing.F) {
	o := &outbox{}
	o.addFrame(frameRequest, []byte("0123456789abcdef"))
	o.addMessage(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{{Data: make([]byte, 70<<10)}}})
	o.addFrame(framePing, make([]byte, 8))
	f.Add(wire(o), uint16(7))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint16) {
		to := &collector{}
		l := newLink(&pieces{b: stream, n: int(piece)%4096 + 1}, bulk, 1, 1<<20, newCounters())
		if err := l.read(to); err == nil {
			t.Fatal("no error at the end")
		}
		for _, body := range to.frames {
			if len(body) > len(stream) {
				t.Fatal("a frame out of nothing")
			}
		}
	})
}

type collector struct{ frames [][]byte }

func (c *collector) frame(_ *link, _ frameType, body []byte, _ bool) error {
	c.frames = append(c.frames, bytes.Clone(body))
	return nil
}

func (c *collector) pause(*link) {}

func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{100, 10 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			m := appMsg(1, 2, 5, make([]byte, size))
			o := &outbox{}
			b.ReportAllocs()
			for b.Loop() {
				o.reset()
				o.addMessage(m)
				v := o.vectors()
				if len(v) > 1 {
					v = [][]byte{bytes.Join(v, nil)}
				}
				if _, err := decodeMessage(v[0][headBytes:], 1, 2); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func joined(head, data []byte) []byte { return append(head, data...) }
