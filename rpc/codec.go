package rpc

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec for ordinary messages
	"google.golang.org/grpc/mem"
)

// rawRequest receives a message's bytes without decoding them. The memory is
// grpc-go's receive buffer wherever the message arrived in one piece.
type rawRequest struct {
	buf mem.Buffer
}

func (r *rawRequest) bytes() []byte { return r.buf.ReadOnlyData() }

func (r *rawRequest) free() {
	if r.buf != nil {
		r.buf.Free()
		r.buf = nil
	}
}

// rawResponse is an encoded message on its way out. It passes its memory on:
// grpc-go holds the slice until the last frame is written, so nothing of it may
// be reused by the next response.
type rawResponse struct {
	bufs mem.BufferSlice
}

// inlineResponse is a small response in one allocation.
type inlineResponse struct {
	rawResponse
	slice [1]mem.Buffer
	buf   mem.SliceBuffer
	data  [inlineBytes]byte
}

// inlineBytes covers the answer to a put or a short transaction.
const inlineBytes = 88

// takeResponse takes the message out of out. Small ones are copied, because
// grpc-go does not tell when it is done with a buffer below its pooling
// threshold; large ones are handed over.
func takeResponse(out *Out) *rawResponse {
	msg := out.Bytes()
	switch {
	case len(msg) <= inlineBytes:
		in := &inlineResponse{}
		in.buf = in.data[:copy(in.data[:], msg)]
		in.slice[0] = &in.buf
		in.bufs = in.slice[:]
		out.Reset()
		return &in.rawResponse
	case len(msg) <= copyBytes || mem.IsBelowBufferPoolingThreshold(cap(msg)):
		r := &rawResponse{bufs: mem.BufferSlice{mem.SliceBuffer(append([]byte(nil), msg...))}}
		out.Reset()
		return r
	}
	b := out.take()
	return &rawResponse{bufs: mem.BufferSlice{mem.NewBuffer(&b.view, b)}}
}

// copyBytes is the size up to which a response is copied: below it a copy into
// fresh memory is cheaper than a round through two pools.
const copyBytes = 1024

// codec passes raw messages through and leaves ordinary ones (health,
// reflection) to grpc-go's own protobuf codec.
type codec struct {
	proto encoding.CodecV2
	stats *netStats
}

func newCodec(stats *netStats) codec {
	return codec{proto: encoding.GetCodecV2("proto"), stats: stats}
}

// Name implements encoding.CodecV2.
func (codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(*rawResponse)
	if !ok {
		bufs, err := c.proto.Marshal(v)
		c.stats.sent.Add(uint64(bufs.Len()))
		return bufs, err
	}
	if len(r.bufs) == 0 {
		return nil, fmt.Errorf("rpc: response was sent already")
	}
	c.stats.sent.Add(uint64(r.bufs.Len()))
	bufs := r.bufs
	r.bufs = nil
	return bufs, nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	c.stats.received.Add(uint64(data.Len()))
	r, ok := v.(*rawRequest)
	if !ok {
		return c.proto.Unmarshal(data, v)
	}
	r.free()
	r.buf = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return nil
}
