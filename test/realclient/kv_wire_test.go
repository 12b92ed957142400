package realclient

import (
	"encoding/hex"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// bytesCodec sends requests as they are and reads messages.
type bytesCodec struct{}

func (bytesCodec) Name() string                  { return "proto" }
func (bytesCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	return proto.Unmarshal(data, v.(proto.Message))
}

// TestWireFormat sends requests byte by byte: what protobuf demands of a reader beyond what its own writer produces. The
// error's code is compared, its words belong to the protobuf library.
func TestWireFormat(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	conn := s.Conn(t)
	mustPut(t, s.kv, put("a", "1")) // revision 2
	mustPut(t, s.kv, put("b", "2")) // revision 3
	const internal, noKey = "Internal", "InvalidArgument: etcdserver: key is not provided"
	both := "rev 3 count 2: a=1(2,2,1) b=2(3,3,1)"
	one := "rev 3 count 1: a=1(2,2,1)"
	tests := []struct {
		name string
		hex  string // of a RangeRequest
		want string
	}{
		{"plain", "0a0161 120163", both},
		{"nothing", "", noKey},
		{"fields in another order", "120163 0a0161", both},
		{"a field twice: the last counts", "0a0162 0a0161", one},
		{"a field twice: an empty last counts", "0a0161 0a00", noKey},
		{"number as long as it need not be", "0a0161 18818000", one},
		{"number of ten bytes", "0a0161 20ffffffffffffffffff01", one},
		{"number of ten bytes, the last too large", "0a0161 20ffffffffffffffffff02", internal},
		{"number of eleven bytes", "0a0161 2080808080808080808080 01", internal},
		{"number without an end", "0a0161 1880", internal},
		{"true as any number", "0a0161 4005", "rev 3 count 1: a=(2,2,1)"},
		{"bool of 64 bits", "0a0161 4080808080808080808001", "rev 3 count 1: a=(2,2,1)"},
		{"enum cut to 32 bits", "0a0161 120163 288280808010", "rev 3 count 2: b=2(3,3,1) a=1(2,2,1)"},
		{"unknown field: number", "0a0161 f83f05", one},
		{"unknown field: bytes", "0a0161 fa3f0378797a", one},
		{"unknown field: 4 bytes", "0a0161 fd3f01020304", one},
		{"unknown field: 8 bytes", "0a0161 f93f0102030405060708", one},
		{"unknown field: group", "0a0161 fb3f0801fc3f", one},
		{"unknown field: groups in a group", "0a0161 fb3f0b0801130c fc3f", internal},
		{"group that ends as another", "0a0161 fb3f0c", internal},
		{"group without an end", "0a0161 fb3f0801", internal},
		{"end of a group that did not begin", "0a0161 fc3f", internal},
		{"unknown field cut off", "0a0161 fa3f0578", internal},
		{"known field of another type is unknown", "0a0161 0801", one},
		{"key as 4 bytes is unknown", "0d01020304", noKey},
		{"limit as bytes is unknown", "0a0161 1a0101", one},
		{"length beyond the end", "0a05 61", internal},
		{"length that is negative", "0affffffffffffffffff01 61", internal},
		{"field number 0", "0a0161 0001", internal},
		{"field number too large", "0a0161 8080808080 01 01", internal},
		{"reserved wire type 6", "0a0161 0e01", internal},
		{"reserved wire type 7", "0a0161 0f01", internal},
		{"tag cut off", "0a0161 80", internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := hex.DecodeString(strings.ReplaceAll(tt.hex, " ", ""))
			check(t, err)
			var resp pb.RangeResponse
			err = conn.Invoke(s.ctx, "/etcdserverpb.KV/Range", raw, &resp, grpc.ForceCodec(bytesCodec{}))
			got := rangeText(&resp)
			if err != nil {
				got = errText(err)
			}
			if tt.want == internal {
				got, _, _ = strings.Cut(got, ":")
			}
			equal(t, "answer", got, tt.want)
		})
	}
}

// TestWireFormatOfTxn: within a message, parts that come twice are merged, and of a choice the last counts.
func TestWireFormatOfTxn(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	conn := s.Conn(t)
	mustPut(t, s.kv, put("a", "1")) // revision 2
	txn := func(raw string) string {
		b, err := hex.DecodeString(strings.ReplaceAll(raw, " ", ""))
		check(t, err)
		var resp pb.TxnResponse
		if err := conn.Invoke(s.ctx, "/etcdserverpb.KV/Txn", b, &resp, grpc.ForceCodec(bytesCodec{})); err != nil {
			return errText(err)
		}
		return txnText(&resp)
	}
	// success { request_range { key: a } }
	equal(t, "plain", txn("1207 0a05 0a0161 1801"), "true rev 2 {rev 2 count 1: a=1(2,2,1)}")
	// success { request_range { key: a } request_range { keys_only } }: one range with both
	equal(t, "parts of one message", txn("1209 0a03 0a0161 0a02 4001"), "true rev 2 {rev 2 count 1: a=(2,2,1)}")
	// success { request_range { key: a } request_put { key: p value: 1 } }: the put
	equal(t, "two of a choice", txn("120d 0a03 0a0161 1206 0a0170 120131"), "true rev 3 {put rev 3}")
	// success { request_put { key: p } request_range { key: a } }: the range
	equal(t, "two of a choice, the other way round", txn("120a 1203 0a0170 0a03 0a0161"), "true rev 3 {rev 3 count 1: a=1(2,2,1)}")
	// compare { target: MOD key: a version: 2 mod_revision: 2 }: the last of the values
	equal(t, "two values to compare with", txn("0a09 1002 1a0161 2009 3002"), "true rev 3 {}")
	equal(t, "two values, the other way round", txn("0a09 1002 1a0161 3002 2009"), "false rev 3 {}")
	// success { }
	equal(t, "an empty operation", txn("1200"), "InvalidArgument: etcdserver: key not found")
	// success { request_range { } }
	equal(t, "an empty range", txn("1202 0a00"), "InvalidArgument: etcdserver: key is not provided")
	// success { request_txn { success { request_range { key: a } } } }
	equal(t, "nested", txn("1209 2207 1205 0a03 0a0161"), "true rev 3 {true rev 0 {rev 3 count 1: a=1(2,2,1)}}")
}
