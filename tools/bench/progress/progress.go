package progress

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// lineInterval keeps a log file readable when there is no terminal.
const lineInterval = 10 * time.Second

// resolution of the bar: it moves in thousandths.
const resolution = 1000

// Reporter shows one task after another.
type Reporter struct {
	mu       sync.Mutex
	out      *os.File
	terminal bool
	bar      *progressbar.ProgressBar
	task     string
	printed  time.Time
}

// New reports to out.
func New(out *os.File) *Reporter {
	return &Reporter{out: out, terminal: term.IsTerminal(int(out.Fd()))}
}

// Begin starts a task; what was shown of the one before is closed.
func (r *Reporter) Begin(task string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closeLocked()
	r.task, r.printed = task, time.Now()
	if !r.terminal {
		fmt.Fprintf(r.out, "%s\n", task)
		return
	}
	r.bar = progressbar.NewOptions(resolution,
		progressbar.OptionSetWriter(r.out),
		progressbar.OptionSetDescription(task),
		progressbar.OptionSetWidth(30),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetPredictTime(true),
	)
}

// Update shows the share of the task that is done, from 0 to 1, and a note.
func (r *Reporter) Update(done float64, note string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bar != nil {
		r.bar.Describe(r.task + "  " + note)
		_ = r.bar.Set(int(done * resolution)) // a bar that cannot be drawn is no reason to stop
		return
	}
	if !r.terminal && time.Since(r.printed) >= lineInterval {
		r.printed = time.Now()
		fmt.Fprintf(r.out, "  %3.0f %%  %s\n", done*100, note)
	}
}

// End closes what is shown.
func (r *Reporter) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closeLocked()
}

func (r *Reporter) closeLocked() {
	if r.bar != nil {
		_ = r.bar.Finish()
		r.bar = nil
	}
}
