package realclient

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"quire/test/harness"
)

// ctlAuthScript is the life of users, roles and permissions.
var ctlAuthScript = []ctlStep{
	{args: "auth status"},
	{args: "auth disable"},
	{args: "auth enable"},
	{args: "role list"}, {args: "user list"},
	{args: "role add reader"}, {args: "role add reader"}, {args: "role add writer"},
	{args: "role get reader"}, {args: "role get nobody"},
	{args: "role grant-permission reader read a"},
	{args: "role grant-permission reader read b d"},
	{args: "role grant-permission reader readwrite p/ --prefix"},
	{args: "role grant-permission reader write x --from-key"},
	{args: "role grant-permission reader bogus a"},
	{args: "role grant-permission nobody read a"},
	{args: "role get reader"},
	{args: "role revoke-permission reader b d"},
	{args: "role revoke-permission reader b d"},
	{args: "role revoke-permission reader x --from-key"},
	{args: "role grant-permission writer readwrite a"},
	{args: "role list"},
	{args: "user add ann:secret"}, {args: "user add ann:secret"},
	{args: "user add bob --no-password"},
	{args: "user add :x"},
	{args: "user add carl --interactive=false", input: "hidden\n"},
	{args: "user list"}, {args: "user get ann"}, {args: "user get nobody"},
	{args: "user grant-role ann reader"}, {args: "user grant-role ann nothing"}, {args: "user grant-role nobody reader"},
	{args: "user get ann"}, {args: "user get ann --detail", simple: true},
	{args: "user revoke-role ann writer"},
	{args: "user passwd ann --interactive=false", input: "changed\n"},
	{args: "user passwd nobody --interactive=false", input: "x\n"},
	{args: "put a 1"}, {args: "put p/1 1"}, {args: "put z 1"},
	{args: "auth enable"},
	{args: "user add root:top"}, {args: "user grant-role root root"},
	{args: "auth enable"},
	{args: "auth status"}, {args: "auth status --user root:top"},
	{args: "get a"}, {args: "put a 2"}, {args: "del a"}, {args: "member list"}, {args: "alarm list"}, {args: "endpoint hashkv"}, {args: "defrag"},
	{args: "get a --user ann:secret"},
	{args: "get a --user ann:changed"},
	{args: "get a z --user ann:changed"},
	{args: "put a 2 --user ann:changed"},
	{args: "put p/1 2 --prev-kv --user ann:changed"},
	{args: "del p/ --prefix --user ann:changed"},
	{args: "txn --user ann:changed", input: "mod(\"a\") > \"0\"\n\nput p/2 2\nget a\n\nput z 1\n\n"},
	{args: "txn --user ann:changed", input: "mod(\"p/2\") > \"0\"\n\nput p/2 2\n\nput p/3 3\n\n"},
	{args: "lease grant 500 --user ann:changed"},
	{args: "lease timetolive LEASE --keys --user ann:changed"},
	{args: "put p/l 1 --lease LEASE --user ann:changed"},
	{args: "lease list --user ann:changed"},
	{args: "user list --user ann:changed"}, {args: "user get ann --user ann:changed"}, {args: "user get bob --user ann:changed"},
	{args: "role get reader --user ann:changed"}, {args: "role get writer --user ann:changed"},
	{args: "compaction 3 --user ann:changed"},
	{args: "member list --user ann:changed"},
	{args: "endpoint status --user ann:changed"},
	{args: "get a --user bob:any"},
	{args: "user delete carl --user root:top"}, {args: "user delete root --user root:top"}, {args: "user delete carl --user root:top"},
	{args: "user revoke-role root root --user root:top"},
	{args: "role delete reader --user root:top"}, {args: "role delete root --user root:top"}, {args: "role delete reader --user root:top"},
	{args: "get a --user ann:changed"},
	{args: "user get ann --user root:top"},
	{args: "get z --user root:top"},
	{args: "lease revoke LEASE --user root:top"},
	{args: "auth disable --user ann:changed"}, {args: "auth disable --user root:top"},
	{args: "auth status"},
	{args: "get a"}, {args: "get a --user root:top"},
}

// ctlMemberScript is what a single member answers about the cluster and its versions.
var ctlMemberScript = []ctlStep{
	{args: "member list", simple: true},
	{args: "member update MEMBER --peer-urls http://127.0.0.1:1,http://127.0.0.1:2"},
	{args: "member update 1 --peer-urls http://127.0.0.1:1"},
	{args: "member update MEMBER --peer-urls nonsense"},
	{args: "member list"},
	{args: "member promote MEMBER"}, {args: "member promote 1"},
	{args: "member add late --peer-urls http://127.0.0.1:1 --learner"},
	{args: "member add late --peer-urls http://127.0.0.1:3 --learner", simple: true},
	{args: "member add later --peer-urls http://127.0.0.1:4 --learner"},
	{args: "member promote MEMBER"},
	{args: "move-leader MEMBER"},
	{args: "member remove MEMBER"}, {args: "member remove MEMBER"}, {args: "member promote MEMBER"},
	{args: "member list"},
	{args: "downgrade validate 3.6"}, {args: "downgrade validate 3.6.0"}, {args: "downgrade validate 3.5"}, {args: "downgrade validate 3.7"}, {args: "downgrade validate nonsense"},
	{args: "downgrade cancel"},
	{args: "downgrade enable 3.5"},
	{args: "alarm list"}, {args: "alarm disarm"},
	{args: "endpoint status"}, {args: "endpoint health"},
	{args: "get k"},
}

func TestEtcdctlSnapshot(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, v := range []string{"1", "2", "3"} {
		mustPut(t, s.kv, put("k", v))
	}
	file := filepath.Join(t.TempDir(), "snapshot.db")
	saved := s.Ctl(t, "snapshot", "save", file)
	if saved.ExitCode != 0 || !strings.Contains(saved.Stdout, "Snapshot saved at "+file) {
		t.Fatalf("snapshot save: %+v", saved)
	}
	out, err := exec.Command(harness.Etcdutl(t), "snapshot", "status", "-w", "fields", file).CombinedOutput()
	check(t, err)
	if !strings.Contains(string(out), `"Revision" : 4`) {
		t.Errorf("snapshot status printed %q", out)
	}
}

// TestEtcdctlCheck runs the load checks; how fast they find the server is not the question here.
func TestEtcdctlCheck(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("each of the checks takes a minute")
	}
	s := startServer(t)
	for _, c := range []struct{ args, says string }{
		{"check perf --load s", "Throughput"},
		{"check datascale --load s", "Approximate system memory used"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		out, err := s.CtlCommand(ctx, t, strings.Fields(c.args)...).CombinedOutput()
		cancel()
		if !strings.Contains(string(out), c.says) {
			t.Errorf("etcdctl %s: %v, printed %q", c.args, err, out)
		}
	}
}

// TestEtcdctlEverySubcommand finds out what etcdctl offers and that the tests of this package use all of it.
func TestEtcdctlEverySubcommand(t *testing.T) {
	t.Parallel()
	used := map[string]bool{ // by the tests that follow no script
		"watch": true, "lock": true, "elect": true, "make-mirror": true, "snapshot save": true,
		"check perf": true, "check datascale": true,
		"help": true, "completion": true, "options": true, // talk to no server
	}
	for _, script := range [][]ctlStep{ctlScript, ctlAuthScript, ctlMemberScript} {
		for _, st := range script {
			words := strings.Fields(st.args)
			used[words[0]] = true
			if len(words) > 1 {
				used[words[0]+" "+words[1]] = true
			}
		}
	}
	commands := ctlCommands(t)
	if len(commands) < 40 {
		t.Fatalf("etcdctl's help names only %v", commands)
	}
	for _, c := range commands {
		if !used[c] {
			t.Errorf("no test uses etcdctl %s", c)
		}
	}
}

var helpLine = regexp.MustCompile(`(?m)^  ([a-z-]+)  +\S`)

// ctlCommands returns etcdctl's commands, those with subcommands as "command subcommand".
func ctlCommands(t *testing.T) (all []string) {
	t.Helper()
	for _, c := range ctlHelp(t) {
		subs := ctlHelp(t, c)
		if len(subs) == 0 || slices.Contains([]string{"completion", "help", "options"}, c) {
			all = append(all, c)
		}
		for _, sub := range subs {
			if c != "completion" && c != "help" && c != "options" {
				all = append(all, c+" "+sub)
			}
		}
	}
	return all
}

// ctlHelp returns the subcommands that the help of a command lists.
func ctlHelp(t *testing.T, command ...string) (names []string) {
	t.Helper()
	out, err := exec.Command(harness.Etcdctl(t), append(command, "--help")...).CombinedOutput()
	check(t, err)
	text, _, _ := strings.Cut(string(out), "\nOptions")
	for _, m := range helpLine.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}
