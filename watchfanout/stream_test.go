package watchfanout

import (
	"testing"
	"testing/synctest"

	pb "quire/api/etcdserverpb"
)

func TestWatchBasics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		c := r.open()
		c.create(&pb.WatchCreateRequest{Key: []byte("a")})
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b"), PrevKv: true})
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte{0}, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}})
		r.txn(put("a", "1"))
		r.txn(put("a", "2"), put("ab", "x"))
		r.txn(del("a"))
		r.txn(put("b", "9"))
		want(t, c.drain(),
			"@1 id=0 created", "@1 id=1 created", "@1 id=2 created",
			"@2 id=0 put(a=1)@2", "@2 id=1 put(a=1)@2",
			"@3 id=0 put(a=2)@3", "@3 id=1 put(a=2)@3<1@2 put(ab=x)@3",
			"@4 id=0 del(a)@4", "@4 id=1 del(a)@4<2@3", "@4 id=2 del(a)@4",
		)
		c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3, PrevKv: true, WatchId: 77})
		synctest.Wait()
		want(t, c.drain(), "@5 id=77 created", "@5 id=77 put(a=2)@3<1@2 del(a)@4<2@3")
		r.txn(put("a", "new"))
		want(t, c.drain(), "@6 id=0 put(a=new)@6", "@6 id=77 put(a=new)@6", "@6 id=1 put(a=new)@6")
		if err := c.s.Cancel(77); err != nil {
			t.Fatal(err)
		}
		if err := c.s.Progress(); err != nil {
			t.Fatal(err)
		}
		want(t, c.drain(), "@6 id=77 canceled", "@6 id=-1")
	})
}
