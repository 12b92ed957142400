package realclient

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"quire/test/harness"
)

// ctlStep is one call of etcdctl. LEASE in an argument stands for the id of the last lease granted to that server,
// MEMBER for that of a member.
type ctlStep struct {
	args   string // split at spaces; a space within an argument is written as _
	input  string
	simple bool // always in the format "simple"
}

// ctlScript is a history of calls; both servers run it from an empty store and must leave the same output. Calls that
// print no key-values or headers ("table") differ by format in what etcdctl itself refuses, which is compared too.
var ctlScript = []ctlStep{
	{args: "put a 1"},
	{args: "put a 2 --prev-kv"},
	{args: "put b", input: "from standard input"},
	{args: "put a --ignore-value --prev-kv"},
	{args: "put absent --ignore-value"},
	{args: "put bytes \x01\xfe"},
	{args: "get a"},
	{args: "get absent"},
	{args: "get --hex a"},
	{args: "get a --print-value-only"},
	{args: "get a z --limit 1"},
	{args: "get a --prefix --keys-only"},
	{args: "get a --from-key --count-only"},
	{args: "get a z --order DESCEND --sort-by MODIFY"},
	{args: "get a z --rev 2"},
	{args: "get a --rev 1000"},
	{args: "get a --consistency s"},
	{args: "get a z --min-mod-rev 4"},
	{args: "get a z --min-create-rev 4"},
	{args: "get a z --stream"},
	{args: "lease grant 500"},
	{args: "put leased x --lease LEASE"},
	{args: "put leased y --ignore-lease --prev-kv"},
	{args: "lease timetolive LEASE --keys"},
	{args: "lease timetolive 123456"},
	{args: "lease keep-alive --once LEASE"},
	{args: "lease keep-alive --once 123456"},
	{args: "lease list"},
	{args: "lease revoke LEASE"},
	{args: "lease revoke 123456"},
	{args: "put x y --lease 123456"},
	{args: "get leased"},
	{args: "txn", input: "value(\"a\") = \"2\"\nmod(\"b\") > \"0\"\n\nput t 1\nget b\ndel bytes --prev-kv\n\nget a\n\n"},
	{args: "txn", input: "version(\"a\") = \"77\"\n\nput t 2\n\nget a\nget b\n\n"},
	{args: "txn", input: "\nput t 1\nput t 2\n\n\n"},
	{args: "del t --prev-kv"},
	{args: "del absent"},
	{args: "put d/1 1"}, {args: "put d/2 2"}, {args: "put d/3 3"},
	{args: "del d/ --prefix --prev-kv"},
	{args: "put e 1"}, {args: "put f 1"},
	{args: "del e --from-key"},
	{args: "compaction 5"},
	{args: "compaction 5"},
	{args: "compaction 8 --physical"},
	{args: "compaction 1000"},
	{args: "get a --rev 4"},
	{args: "endpoint health"},
	{args: "endpoint status"},
	{args: "endpoint status --cluster"},
	{args: "endpoint hashkv"},
	{args: "endpoint hashkv --rev 12"},
	{args: "endpoint hashkv --rev 4"},
	{args: "endpoint hashkv --rev 1000"},
	{args: "member list"},
	{args: "member list --hex"},
	{args: "alarm list"},
	{args: "alarm disarm"},
	{args: "defrag"},
	{args: "move-leader 1"},
	{args: "member remove 1"},
	{args: "version"},
	{args: "get"},
}

func TestEtcdctlPrintsTheSameAsForUpstream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		script  []ctlStep
		formats []string
	}{
		{"data", ctlScript, []string{"simple", "json", "fields", "table"}},
		{"auth", ctlAuthScript, []string{"simple", "json"}},
		{"members", ctlMemberScript, []string{"simple", "fields"}},
	} {
		for _, format := range c.formats {
			t.Run(c.name+" "+format, func(t *testing.T) {
				t.Parallel()
				ours, theirs := ctlRun{s: harness.Start(t, cheapPasswords)}, ctlRun{s: harness.StartUpstream(t, cheapPasswords)}
				for i, st := range c.script {
					what := fmt.Sprintf("step %d: etcdctl -w %s %s", i, format, st.args)
					equal(t, what, ours.step(t, format, st), theirs.step(t, format, st))
				}
			})
		}
	}
}

// cheapPasswords: the time to hash one is not the question, and the scripts log in often.
const cheapPasswords = "--bcrypt-cost=4"

// ctlRun is one server on which a script runs.
type ctlRun struct {
	s      *harness.Server
	lease  string
	member string // the first that a list of members named, or the one added last
}

var listedMember = regexp.MustCompile(`(?m)^([0-9a-f]+), started|Member +([0-9a-f]+) added`)

var grantedLease = regexp.MustCompile(`lease ([0-9a-f]+) granted|"ID"\s*:\s*([0-9]+)`)

func (r *ctlRun) step(t *testing.T, format string, st ctlStep) string {
	t.Helper()
	if st.simple || strings.HasPrefix(st.args, "lease grant") && format == "table" {
		format = "simple" // etcdctl cannot print it otherwise, or the script reads it
	}
	args := []string{"-w", format, "--command-timeout", "60s"}
	for _, arg := range strings.Fields(st.args) {
		arg = strings.NewReplacer("LEASE", r.lease, "MEMBER", r.member, "_", " ").Replace(arg)
		args = append(args, arg)
	}
	out := r.s.CtlInput(t, st.input, args...)
	if strings.HasPrefix(st.args, "lease grant") {
		m := grantedLease.FindStringSubmatch(out.Stdout)
		if m == nil {
			t.Fatalf("no lease in %q", out.Stdout)
		}
		r.lease = m[1]
		if m[2] != "" {
			var id int64
			_, err := fmt.Sscan(m[2], &id)
			check(t, err)
			r.lease = fmt.Sprintf("%x", id)
		}
	}
	if m := listedMember.FindStringSubmatch(out.Stdout); m != nil {
		r.member = m[1] + m[2]
	}
	return fmt.Sprintf("exit %d\n%s%s", out.ExitCode, normal(out.Stdout), normal(out.Stderr))
}

// normal replaces what differs from one server or run to the next: ids, addresses, times, sizes and raft positions.
func normal(s string) string {
	for _, r := range ctlNormal {
		s = r.from.ReplaceAllString(s, r.to)
	}
	return s
}

var ctlNormal = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`(?m)^\{"level".*"error":"(.*)"\}$`), "log: $1"},
	{regexp.MustCompile(`ETCD_INITIAL_CLUSTER="[^"]*"`), "ETCD_INITIAL_CLUSTER"}, // in no order
	{regexp.MustCompile(`127\.0\.0\.1:[0-9]+`), "ADDRESS"},
	{regexp.MustCompile(`took:? = [0-9.]+[mµ]?s|took [0-9.]+[mµ]?s`), "took TIME"},
	{regexp.MustCompile(`"([Tt])ook"( ?): ?"?[0-9.]+[mµ]?s"?`), `"${1}ook": TIME`},
	{regexp.MustCompile(`[0-9.]+(ms|µs)`), "TIME"},
	{regexp.MustCompile(`"(cluster_id|member_id|ClusterID|MemberID|leader|Leader|ID|id|lease|Lease|PrevLease)"( ?): ?"?0*[1-9a-f][0-9a-f]*"?`), `"$1": ID`},
	{regexp.MustCompile(`"(raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse)"( ?): ?[0-9]+`), `"$1": N`},
	{regexp.MustCompile(`"(raft_term|raftTerm|RaftTerm)"( ?): ?[1-9][0-9]*`), `"$1": TERM`},
	{regexp.MustCompile(`\b[0-9a-f]{11,16}\b`), "ID"},
	// endpoint status, as one line: ... 20 kB, 16 kB, 20%, 2.1 GB, true, false, 2, 11, 11 ...
	{regexp.MustCompile(`[0-9.]+ [kM]?B, [0-9.]+ [kM]?B, -?[0-9]+%`), "SIZE, SIZE, PERCENT"},
	{regexp.MustCompile(`(true|false), [0-9]+, [0-9]+, [0-9]+,`), "$1, TERM, INDEX, INDEX,"},
	// and as a table, without its widths
	{regexp.MustCompile(`[┌┬┐└┴┘├┼┤─]+`), "-"},
	{regexp.MustCompile(` +`), " "},
	{regexp.MustCompile(`│ [0-9.]+ [kM]?B │ [0-9.]+ [kM]?B │ -?[0-9]+% │`), "│ SIZE │ SIZE │ PERCENT │"},
	{regexp.MustCompile(`(true|false) │ [0-9]+ │ [0-9]+ │ [0-9]+ │`), "$1 │ TERM │ INDEX │ INDEX │"},
	// the rest of a lease's time may differ by the second in which it was asked
	{regexp.MustCompile(`remaining\([0-9]+s\)`), "remaining(TIME)"},
	{regexp.MustCompile(`"(ttl|TTL)"( ?): ?[0-9]+`), `"$1": TIME`},
}

func TestEtcdctlWatch(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"simple", "json", "fields"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			watched := func(s *server) string {
				mustPut(t, s.kv, put("k1", "1"))
				_, out := s.CtlStart(t, nil, "-w", format, "watch", "k", "--prefix", "--prev-kv", "--rev", "2")
				mustPut(t, s.kv, put("k1", "2"))
				mustDel(t, s.kv, del("k1", ""))
				mustPut(t, s.kv, put("last", "1"))
				mustPut(t, s.kv, put("k2", "END"))
				if !out.Wait(map[string]string{"simple": "END", "json": "RU5E", "fields": `"END"`}[format], arriveLimit) {
					t.Fatalf("no end in %q", out)
				}
				// Which events share a response is up to the server.
				return strings.Join(regexp.MustCompile(`(?s)"key"[^}]*\}`).FindAllString(normal(out.String()), -1), "\n") +
					fmt.Sprint(strings.Count(out.String(), "DELETE"), strings.Count(out.String(), "PUT"))
			}
			equal(t, "events", watched(startServer(t)), watched(connect(t, harness.StartUpstream(t))))
		})
	}
}

func TestEtcdctlWatchInteractiveAndWithACommand(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	mustPut(t, s.kv, put("k", "1"))
	_, out := s.CtlStart(t, nil, "watch", "k", "--rev", "2", "--", "sh", "-c", "echo saw $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE at $ETCD_WATCH_REVISION")
	if !out.Wait(`saw "PUT" "k" "1" at 2`, arriveLimit) {
		t.Errorf("command of a watch printed %q", out)
	}
	stdin, typed, err := os.Pipe()
	check(t, err)
	defer stdin.Close()
	defer typed.Close()
	_, out = s.CtlStart(t, stdin, "watch", "-i")
	_, err = typed.WriteString("watch k --rev 2\nprogress\nwatch j\n")
	check(t, err)
	if !out.Wait("PUT\nk\n1\n", arriveLimit) {
		t.Errorf("interactive watch printed %q", out)
	}
}

func TestEtcdctlLock(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	done := s.Ctl(t, "lock", "name", "echo", "held")
	equal(t, "lock around a command", fmt.Sprint(done.ExitCode, done.Stdout), "0held\n")
	failed := s.Ctl(t, "lock", "name", "sh", "-c", "exit 7")
	equal(t, "a command that fails", failed.ExitCode, 1)

	first, out1 := s.CtlStart(t, nil, "lock", "name")
	if !out1.Wait("name/", arriveLimit) {
		t.Fatalf("first lock printed %q", out1)
	}
	_, out2 := s.CtlStart(t, nil, "lock", "name")
	time.Sleep(quietTime)
	equal(t, "second waits", out2.String(), "")
	check(t, first.Process.Signal(syscall.SIGINT))
	if !out2.Wait("name/", arriveLimit) {
		t.Fatalf("second lock printed %q after the first let go", out2)
	}
}

func TestEtcdctlElect(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	_, observer := s.CtlStart(t, nil, "elect", "-l", "name")
	first, out1 := s.CtlStart(t, nil, "elect", "name", "first")
	if !out1.Wait("name/", arriveLimit) || !out1.Wait("first\n", arriveLimit) {
		t.Fatalf("first candidate printed %q", out1)
	}
	_, out2 := s.CtlStart(t, nil, "elect", "name", "second")
	time.Sleep(quietTime)
	equal(t, "second waits", out2.String(), "")
	check(t, first.Process.Signal(syscall.SIGINT))
	if !out2.Wait("second\n", arriveLimit) {
		t.Fatalf("second candidate printed %q", out2)
	}
	if !observer.Wait("first\n", arriveLimit) || !observer.Wait("second\n", arriveLimit) {
		t.Errorf("observer printed %q", observer)
	}
}

func TestEtcdctlMakeMirror(t *testing.T) {
	t.Parallel()
	s, target := startServer(t), startServer(t)
	mustPut(t, s.kv, put("m/1", "1"))
	s.CtlStart(t, nil, "make-mirror", "--prefix", "m/", target.Endpoint)
	has := func(key, value string) func() bool {
		return func() bool {
			resp := mustGet(t, target.kv, get(key, ""))
			return len(resp.Kvs) == 1 && string(resp.Kvs[0].Value) == value
		}
	}
	eventually(t, "what was there is copied", has("m/1", "1"))
	mustPut(t, s.kv, put("m/2", "2"))
	eventually(t, "what comes is copied", has("m/2", "2"))
	mustDel(t, s.kv, del("m/1", ""))
	eventually(t, "deletes are copied", func() bool { return target.gone(t, "m/1") })
}
