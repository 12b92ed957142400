package rpc

import (
	"testing"

	pb "quire/api/etcdserverpb"
)

// TestDecodeOtherWireType: a known field number with another wire type is an
// unknown field; what goes to the log no longer has it.
func TestDecodeOtherWireType(t *testing.T) {
	wire := []byte{0x0a, 0x01, 'b', 0x08, 0x01} // key "b"; field 1 again, as a varint
	var r pb.DeleteRangeRequest
	if err := decode(&wire, &r); err != nil {
		t.Fatal(err)
	}
	if string(r.Key) != "b" || string(wire) != "\n\x01b" {
		t.Fatalf("key %q, wire %q", r.Key, wire)
	}
	cut := []byte{0x0a, 0x05, 'b'}
	if err := decode(&cut, &r); err == nil {
		t.Fatal("a cut field is accepted")
	}
}
