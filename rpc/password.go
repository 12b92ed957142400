package rpc

import (
	"encoding/base64"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// passwords hashes and compares passwords on goroutines of its own. One bcrypt
// takes tens of milliseconds of a core, so a storm of log-ins may use a quarter
// of the cores and no more, and what waits is bounded.
type passwords struct {
	cost    int
	workers int
	jobs    chan passwordJob
	took    atomic.Int64 // nanoseconds that a job takes, lately
	stop    chan struct{}
	wg      sync.WaitGroup
}

// passwordJob is one use of bcrypt for a call, which goes on with next.
type passwordJob struct {
	call *Call
	work func()
	next func(*Call)
}

const (
	// passwordsWaiting is how many jobs may wait for each worker.
	passwordsWaiting = 64
	// passwordsWait is how long the last of them may have to wait, as far as one
	// can tell: less than a request may take, so that what was accepted is done
	// in time, also with a high cost or on a busy machine.
	passwordsWait = 2 * time.Second
)

func newPasswords(cost int) *passwords {
	workers := max(1, runtime.GOMAXPROCS(0)/4)
	p := &passwords{cost: cost, workers: workers, jobs: make(chan passwordJob, passwordsWaiting*workers), stop: make(chan struct{})}
	p.wg.Add(workers)
	for range workers {
		go p.run()
	}
	return p
}

// run is the goroutine of one worker.
func (p *passwords) run() {
	defer p.wg.Done()
	for {
		select {
		case <-p.stop:
			return
		case j := <-p.jobs:
			p.do(j)
		}
	}
}

// do works unless the call has ended while it waited.
func (p *passwords) do(j passwordJob) {
	if !j.call.ended() {
		began := time.Now()
		j.work()
		old := p.took.Load()
		p.took.Store(old + (int64(time.Since(began))-old)/4)
		j.call.next = j.next
		j.call.wake(j.call)
	}
	j.call.release()
}

// full tells whether one more job would wait too long. The first one never does,
// whatever a password costs.
func (p *passwords) full() bool {
	waiting := int64(len(p.jobs))
	return waiting > 0 && (waiting+1)*p.took.Load() > int64(p.workers)*int64(passwordsWait)
}

// close stops the workers; calls that wait are left to the watchdog.
func (p *passwords) close() {
	close(p.stop)
	p.wg.Wait()
}

// offload has work done by a password worker, and then next by the transport.
func (c *Call) offload(work func(), next func(*Call)) {
	if c.srv.passwords.full() {
		c.Fail(errTooManyRequests)
		return
	}
	c.hold()
	select {
	case c.srv.passwords.jobs <- passwordJob{c, work, next}:
		c.srv.dog.add(c)
	default:
		c.release()
		c.Fail(errTooManyRequests)
	}
}

// matches reports whether a password has this hash.
func matches(hash []byte, password string) bool {
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
}

// hash returns the hash of a password in the form that requests carry.
func (p *passwords) hash(password string) (string, error) {
	h, err := bcrypt.GenerateFromPassword([]byte(password), p.cost)
	return base64.StdEncoding.EncodeToString(h), err
}

// checkPassword refuses what bcrypt would, before anybody waits.
func checkPassword(password string) error {
	if len(password) > maxPasswordBytes {
		return bcrypt.ErrPasswordTooLong
	}
	return nil
}

// maxPasswordBytes is bcrypt's.
const maxPasswordBytes = 72

var errNotHashed = errors.New("rpc: password was not hashed")
