// Package workload knows the named workloads: what each puts into the server
// before it is measured and what one operation of it is.
//
// A Spec says which workload in which shape; it is written NAME@CxS:option=value
// with C connections of S workers each, for example put@10x10:value=1024 or
// range@1x1:rate=500. Open prepares the server and returns one step per worker
// for package loop.
//
// Terms: the key space is Keys keys of KeyBytes bytes below a prefix that
// contains the number of keys, so that trials with different key spaces do not
// see each other's keys. A worker owns the keys whose number is its own modulo
// the number of workers where ownership matters (transactions that compare a
// mod revision). A step's unit is what the workload moves: a key of a page, an
// event of a fan-out, otherwise the operation itself.
//
// Everything random comes from the seed; worker i draws from its own generator,
// so the requests of one worker are the same in every run.
//
// Failures: a step returns an error if the call fails and also if the answer is
// not what the workload must see (a key that is missing, a page of the wrong
// length, an update that lost though nobody else writes the key). A server must
// not look fast because it is wrong.
package workload
