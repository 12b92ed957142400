package realclient

import (
	"fmt"
	"strings"
	"testing"

	"quire/test/harness"
)

// authScript is a history of etcdctl's calls about users and rights, as ctlScript is for the rest. USER in an argument
// stands for --user=USER:pw.
var authScript = []ctlStep{
	{args: "auth status"},
	{args: "auth enable"},
	{args: "user add root --new-user-password=pw"},
	{args: "user add root:again"},
	{args: "user add ann:pw"},
	{args: "user add bob --interactive=false", input: "pw\n"},
	{args: "user add eve --no-password"},
	{args: "user add :pw"},
	{args: "user list"},
	{args: "role add r1"},
	{args: "role add r1"},
	{args: "role add r2"},
	{args: "role grant-permission r1 readwrite a b"},
	{args: "role grant-permission r1 read c --prefix"},
	{args: "role grant-permission r1 write d --from-key"},
	{args: "role grant-permission r1 read exact"},
	{args: "role grant-permission r1 read b a"},
	{args: "role grant-permission none read x"},
	{args: "role grant-permission r1 nonsense x"},
	{args: "role get r1"},
	{args: "role get none"},
	{args: "role list"},
	{args: "user grant-role ann r1"},
	{args: "user grant-role ann none"},
	{args: "user grant-role nobody r1"},
	{args: "user get ann"},
	{args: "user get ann --detail"},
	{args: "user get nobody"},
	{args: "auth enable"},
	{args: "auth status"},
	{args: "USER=root auth status"},
	{args: "put a1 v"},
	{args: "get a1"},
	{args: "USER=ann put a1 v"},
	{args: "USER=ann get a1"},
	{args: "USER=ann put b1 v"},
	{args: "USER=ann get a b"},
	{args: "USER=ann get a --prefix"},
	{args: "USER=ann get a --from-key"},
	{args: "USER=ann del a1 --prev-kv"},
	{args: "USER=ann put d1 v"},
	{args: "USER=ann get d1"},
	{args: "USER=ann put d1 v --prev-kv"},
	{args: "USER=ann get exact"},
	{args: "USER=ann txn", input: "mod(\"a\") > \"0\"\n\nput a 1\n\nget c\n\n"},
	{args: "USER=ann txn", input: "mod(\"z\") > \"0\"\n\nput a 1\n\nput a 2\n\n"},
	{args: "USER=ann txn", input: "mod(\"a\") > \"0\"\n\nput a 1\n\nput b1 2\n\n"},
	{args: "USER=bob put a1 v"},
	{args: "USER=eve put a1 v"},
	{args: "USER=nobody put a1 v"},
	{args: "--user=ann:wrong put a1 v"},
	{args: "USER=ann user list"},
	{args: "USER=ann user get ann"},
	{args: "USER=ann user get root"},
	{args: "USER=ann role get r1"},
	{args: "USER=ann role get r2"},
	{args: "USER=ann role list"},
	{args: "USER=ann user add x:y"},
	{args: "USER=ann auth disable"},
	{args: "USER=ann member list"},
	{args: "member list"},
	{args: "USER=ann endpoint status"},
	{args: "endpoint status"},
	{args: "USER=ann alarm list"},
	{args: "USER=ann alarm disarm"},
	{args: "USER=ann compaction 2"},
	{args: "USER=ann endpoint hashkv"},
	{args: "USER=ann lease list"},
	{args: "USER=root role get root"},
	{args: "USER=root user delete root"},
	{args: "USER=root user revoke-role root root"},
	{args: "USER=root role delete root"},
	{args: "USER=root user passwd ann --interactive=false", input: "new\n"},
	{args: "USER=ann put a1 v"},
	{args: "--user=ann:new put a1 v"},
	{args: "USER=root role revoke-permission r1 a b"},
	{args: "USER=root role revoke-permission r1 a b"},
	{args: "USER=root role revoke-permission r1 d --from-key"},
	{args: "USER=root role get r1"},
	{args: "USER=root user revoke-role ann r2"},
	{args: "USER=root role delete r1"},
	{args: "USER=root user get ann --detail"},
	{args: "--user=ann:new put a1 v"},
	{args: "USER=root user delete ann"},
	{args: "USER=root user delete ann"},
	{args: "USER=root compaction 2"},
	{args: "USER=root auth disable"},
	{args: "auth status"},
	{args: "put a1 v"},
	{args: "USER=root put a1 v"},
}

func TestEtcdctlAuthPrintsTheSameAsForUpstream(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"simple", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			ours, theirs := ctlRun{s: harness.Start(t, "--bcrypt-cost=4")}, ctlRun{s: harness.StartUpstream(t, "--bcrypt-cost=4")}
			for i, st := range authScript {
				what := fmt.Sprintf("step %d: etcdctl -w %s %s", i, format, st.args)
				if user, rest, ok := strings.Cut(st.args, " "); ok && strings.HasPrefix(user, "USER=") {
					st.args = "--user=" + strings.TrimPrefix(user, "USER=") + ":pw " + rest
				}
				equal(t, what, ours.step(t, format, st), theirs.step(t, format, st))
			}
		})
	}
}
