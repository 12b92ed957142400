package rpc

import (
	pb "quire/api/etcdserverpb"
	"quire/api/v3lockpb"
)

const lockService = "v3lockpb.Lock"

func (s *Server) lockMethods() []*Method {
	return []*Method{
		{Service: lockService, Name: "Lock", Auth: AuthHandler, Unary: s.serveLock, Blocking: true},
		{Service: lockService, Name: "Unlock", Auth: AuthHandler, Unary: s.serveUnlock, Blocking: true},
	}
}

// serveLock waits until the lock is the client's. Its key is the lock's name
// and the lease; the same lease may ask again for what it holds.
func (s *Server) serveLock(c *Call) {
	var r v3lockpb.LockRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	lease, err := s.session(c.Ctx, r.Lease)
	if err != nil {
		c.Fail(lineStatus(err))
		return
	}
	l := s.newLine(c.Ctx, r.Name)
	key, rev, err := l.lock(lease)
	if err != nil {
		c.Fail(lineStatus(err))
		return
	}
	c.finishMessage(&v3lockpb.LockResponse{Key: key}, rev)
}

// lock returns the key that holds the lock and the revision at which that was
// seen.
func (l line) lock(lease int64) (key []byte, rev int64, err error) {
	key = l.place(lease)
	own := &pb.RangeRequest{Key: key}
	resp, err := l.ifCreated(l.ctx, key, 0,
		[]*pb.RequestOp{putOp(key, nil, lease), rangeOp(l.first())},
		[]*pb.RequestOp{rangeOp(own), rangeOp(l.first())})
	if err != nil {
		return nil, 0, err
	}
	created := resp.Header.Revision
	if kvs := rangeOf(resp, 0); len(kvs) > 0 {
		created = kvs[0].CreateRevision
	}
	if kvs := rangeOf(resp, 1); len(kvs) == 0 || kvs[0].CreateRevision == created {
		return key, resp.Header.Revision, nil
	}
	seen, err := l.awaitLock(own, created)
	if err != nil {
		return nil, 0, err
	}
	if len(seen.Kvs) == 0 {
		return nil, 0, errSessionExpired // the lease ended in the meantime
	}
	return key, seen.Header.Revision, nil
}

// awaitLock waits for the lock and leaves the line when that fails, so that
// nobody waits for who has gone.
func (l line) awaitLock(own *pb.RangeRequest, created int64) (*pb.RangeResponse, error) {
	err := l.awaitTurn(created)
	var seen *pb.RangeResponse
	if err == nil {
		seen, err = l.read(own)
	}
	if err != nil {
		gone := &pb.DeleteRangeRequest{Key: own.Key}
		_ = l.srv.ask(afterwards(l.ctx), "/"+kvService+"/DeleteRange", gone, &pb.DeleteRangeResponse{})
	}
	return seen, err
}

// serveUnlock deletes the key that Lock gave.
func (s *Server) serveUnlock(c *Call) {
	var r v3lockpb.UnlockRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	var resp pb.DeleteRangeResponse
	if err := s.ask(c.Ctx, "/"+kvService+"/DeleteRange", &pb.DeleteRangeRequest{Key: r.Key}, &resp); err != nil {
		c.Fail(lineStatus(err))
		return
	}
	c.finishMessage(&v3lockpb.UnlockResponse{}, resp.Header.Revision)
}
