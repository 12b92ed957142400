package client

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Reply reads the wire bytes of one message. The bytes are valid only during
// the call.
type Reply interface {
	Decode(body []byte) error
}

// request is an already encoded message on its way out.
type request struct {
	body []byte
}

// codec passes encoded requests and Replies through untouched and leaves
// generated messages to grpc-go's own protobuf codec.
type codec struct {
	messages encoding.CodecV2
}

// Name is empty so that the content type stays plain application/grpc, which
// is what a client without a forced codec sends.
func (codec) Name() string { return "" }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *request:
		return mem.BufferSlice{mem.SliceBuffer(v.body)}, nil
	case proto.Message:
		return c.messages.Marshal(v)
	}
	return nil, fmt.Errorf("cannot encode a %T", v)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case Reply:
		body := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer body.Free()
		return v.Decode(body.ReadOnlyData())
	case proto.Message:
		return c.messages.Unmarshal(data, v)
	}
	return fmt.Errorf("cannot decode into a %T", v)
}
