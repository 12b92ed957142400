package client

// WatchReply reads a WatchResponse. OnEvent, when set, is called for each
// event with the value of its key-value pair, in order, while decoding.
type WatchReply struct {
	Revision        int64
	WatchID         int64
	Created         bool
	Canceled        bool
	CompactRevision int64
	Reason          string
	Events          int

	OnEvent func(value []byte)
}

// Decode implements Reply.
func (r *WatchReply) Decode(body []byte) error {
	*r = WatchReply{OnEvent: r.OnEvent}
	return scan("WatchResponse", body, func(f field) (err error) {
		switch f.num {
		case 1:
			r.Revision, err = headerRevision(f.bytes)
		case 2:
			r.WatchID = int64(f.number)
		case 3:
			r.Created = f.number != 0
		case 4:
			r.Canceled = f.number != 0
		case 5:
			r.CompactRevision = int64(f.number)
		case 6:
			r.Reason = string(f.bytes)
		case 11:
			r.Events++
			if r.OnEvent != nil {
				err = r.event(f.bytes)
			}
		}
		return err
	})
}

// event hands the value of Event.kv to OnEvent.
func (r *WatchReply) event(body []byte) error {
	return scan("Event", body, func(f field) error {
		if f.num != 2 {
			return nil
		}
		var value []byte
		err := scan("KeyValue", f.bytes, func(f field) error {
			if f.num == 5 {
				value = f.bytes
			}
			return nil
		})
		if err == nil {
			r.OnEvent(value)
		}
		return err
	})
}
