package rpc

import (
	"errors"

	pb "quire/api/etcdserverpb"
	"quire/watchfanout"
)

// OpenHubWatch returns Config.OpenWatch over the fan-out hub.
func OpenHubWatch(hub *watchfanout.Hub) func(ready func()) WatchStream {
	return func(ready func()) WatchStream {
		return &hubStream{hub.OpenStream(watchfanout.StreamOptions{Ready: ready})}
	}
}

// hubStream turns the hub's words into WatchStream's.
type hubStream struct{ s *watchfanout.Stream }

func (h *hubStream) Create(r *pb.WatchCreateRequest) error { return watchErr(h.s.Create(r)) }
func (h *hubStream) Cancel(id int64) error                 { return watchErr(h.s.Cancel(id)) }
func (h *hubStream) Progress() error                       { return watchErr(h.s.Progress()) }
func (h *hubStream) Close()                                { h.s.Close() }

// Fill passes one message at a time: a byte bound of one ends after it.
func (h *hubStream) Fill(dst []byte) ([]byte, bool) { return h.s.Fill(dst, 1, nil) }

func watchErr(err error) error {
	if errors.Is(err, watchfanout.ErrBusy) {
		return ErrWatchBusy
	}
	return err
}
