package corruption

import (
	"bytes"
	"reflect"
	"testing"

	"quire/engine"
)

func TestQuestionOfMarks(t *testing.T) {
	m := &fakeMember{id: 1, oldest: 80, newest: 800}
	r := Responder{State: m}
	for _, tc := range []struct{ asked, want []uint64 }{
		{nil, []uint64{80, 800}},
		{[]uint64{72, 80, 81, 400, 800, 808}, []uint64{80, 400, 800}},
		{[]uint64{1}, nil},
	} {
		b, err := r.Marks(t.Context(), 2, appendIndices(nil, tc.asked))
		if err != nil {
			t.Fatal(err)
		}
		marks, err := parseMarks(b)
		var got []uint64
		for _, x := range marks {
			if own, _ := m.RollingMark(x.Index); own != x {
				t.Errorf("mark %v, want %v", x, own)
			}
			got = append(got, x.Index)
		}
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("asked for %v: %v, %v", tc.asked, got, err)
		}
	}
	if _, err := r.Marks(t.Context(), 2, make([]byte, maxIndices+1)); err == nil {
		t.Error("a question about too many entries is answered")
	}
	if b, err := (Responder{State: &fakeMember{}}).Marks(t.Context(), 2, nil); err != nil || len(b) > 0 {
		t.Errorf("no marks: %x, %v", b, err)
	}
}

func FuzzWire(f *testing.F) {
	f.Add(appendIndices(nil, []uint64{8, 16, 1 << 40}))
	f.Add(appendMarks(nil, []engine.RollingMark{{Index: 8, Revision: -1, Sum: 1 << 63}, {Index: 16, Revision: 7}}))
	f.Add(make([]byte, 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		if indices, err := parseIndices(b); err == nil {
			again, err := parseIndices(appendIndices(nil, indices))
			if err != nil || !reflect.DeepEqual(again, indices) || len(indices) > maxIndices {
				t.Errorf("%v, then %v, %v", indices, again, err)
			}
		}
		if marks, err := parseMarks(b); err == nil {
			enc := appendMarks(nil, marks)
			again, err := parseMarks(enc)
			if err != nil || !reflect.DeepEqual(again, marks) || !bytes.Equal(enc, appendMarks(nil, again)) || len(marks) > maxIndices {
				t.Errorf("%v, then %v, %v", marks, again, err)
			}
		}
		_, _ = hashOf(Answer{Body: b})
	})
}
