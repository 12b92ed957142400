package main

import (
	"bytes"
	"crypto/tls"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"quire/cmd/quire/certs"
)

// loadFor loads and validates as main does.
func loadFor(t *testing.T, args, environ []string) (*Config, *flagSet, []string) {
	t.Helper()
	cfg := newConfig()
	set, faults := load(cfg, args, environ)
	if len(faults) == 0 {
		set.ignored = set.withoutEffect()
		faults = cfg.Validate()
	}
	var texts []string
	for _, f := range faults {
		texts = append(texts, f.Error())
	}
	return cfg, set, texts
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "etcd.yml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDefaults(t *testing.T) {
	t.Chdir(t.TempDir())
	c, _, faults := loadFor(t, nil, nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if c.DataDir != "default.etcd" || c.ListenClientURLs.String() != "http://localhost:2379" ||
		c.InitialCluster != "default=http://localhost:2380" || c.MaxRequestBytes != 1572864 || c.QuotaBackendBytes != 2<<30 {
		t.Errorf("%+v", c)
	}
	if _, err := os.Stat("default.etcd"); err == nil {
		t.Error("loading the configuration made the data directory")
	}
}

func TestFlagForms(t *testing.T) {
	t.Chdir(t.TempDir())
	c, set, faults := loadFor(t, []string{
		"--name=a", "-name", "b", "--enable-pprof", "--pre-vote=false", "--snapshot-count", "7",
		"--listen-client-urls", "http://127.0.0.1:2,http://127.0.0.1:1,http://127.0.0.1:2", "--advertise-client-urls=http://h:1",
		"--max-concurrent-streams", "5", "--backend-batch-limit=3", "--v", "--grpc-keepalive-interval=1m",
	}, nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if c.Name != "b" || !c.EnablePprof || c.PreVote || c.SnapshotCount != 7 || c.MaxStreams != 5 || c.KeepAliveInterval != time.Minute {
		t.Errorf("%+v", c)
	}
	if got := c.ListenClientURLs.String(); got != "http://127.0.0.1:1,http://127.0.0.1:2" {
		t.Errorf("URLs %s", got)
	}
	if c.InitialCluster != "b=http://localhost:2380" || c.DataDir != "b.etcd" {
		t.Errorf("derived from the name: %s, %s", c.InitialCluster, c.DataDir)
	}
	if !slices.Equal(set.ignored, []string{"backend-batch-limit"}) {
		t.Errorf("without effect: %v", set.ignored)
	}
}

func TestFaultsAreReportedTogether(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tc := range []struct {
		name string
		args []string
		env  []string
		want []string
	}{
		{"in the words of package flag", []string{
			"--heartbeat-interval", "x", "--bogus", "y", "--enable-pprof=maybe", "--listen-client-urls=ftp://a:1",
			"--initial-cluster-state", "neu", "--max-concurrent-streams=-1", "--feature-gates=Nope=true", "--name", "n", "word",
		}, nil, []string{
			`invalid value "x" for flag -heartbeat-interval: parse error`,
			`flag provided but not defined: -bogus`,
			`invalid boolean value "maybe" for -enable-pprof: parse error`,
			`invalid value "ftp://a:1" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: ftp://a:1`,
			`invalid value "neu" for flag -initial-cluster-state: invalid value`,
			`invalid value "-1" for flag -max-concurrent-streams: strconv.ParseUint: parsing "-1": invalid syntax`,
			`invalid value "Nope=true" for flag -feature-gates: unrecognized feature gate: Nope`,
			`"word" is not a valid flag`,
		}},
		{"values that do not go together", []string{
			"--election-timeout", "100", "--listen-client-urls=http://example.com:1", "--auto-compaction-mode=sometimes",
			"--log-level=loud", "--cert-file=x.pem", "--initial-cluster=other=http://localhost:2380",
		}, nil, []string{
			`--log-level: unknown level "loud"`,
			"--listen-client-urls: expected IP in URL for binding (http://example.com:1)",
			"--advertise-client-urls is required when --listen-client-urls is set explicitly",
			"--cert-file: KeyFile and CertFile must both be present[key: , cert: x.pem]",
			"--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]",
			`couldn't find local name "default" in the initial cluster configuration`,
			`--auto-compaction-mode: unknown auto-compaction-mode "sometimes"`,
		}},
		{"from the environment", nil, []string{"ETCD_ELECTION_TIMEOUT=soon", "ETCD_MAX_TXN_OPS=many"}, []string{
			`invalid value "soon" for ETCD_ELECTION_TIMEOUT: parse error`,
			`invalid value "many" for ETCD_MAX_TXN_OPS: parse error`,
		}},
		{"TLS asked for by URL", []string{"--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://127.0.0.1:1",
			"--listen-peer-urls=unixs://p:1", "--listen-metrics-urls=https://127.0.0.1:2", "--tls-min-version=SSL3", "--cipher-suites=x", "--self-signed-cert-validity=0", "--peer-auto-tls"}, nil, []string{
			`unexpected TLS cipher suite "x"`,
			`unexpected TLS version "SSL3" (must be one of: TLS1.2, TLS1.3)`,
			"--self-signed-cert-validity: selfSignedCertValidity is invalid,it should be greater than 0",
			"TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme",
			"client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url https://127.0.0.1:2",
		}},
		{"things of the past", []string{"--logger=capnslog", "--discovery-fallback=proxy", "--enable-distributed-tracing", "--distributed-tracing-sampling-rate=1000001",
			"--compact-hash-check-time=0", "--feature-gates=LeaseCheckpointPersist=true"}, nil, []string{
			"--logger=capnslog is removed in v3.5",
			"distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
			"--compact-hash-check-time must be >0 (set to 0s)",
			`v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy"`,
			"enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
		}},
		{"discovery", []string{"--discovery-token=t", "--discovery-srv=example.com", "--initial-cluster=a=http://h:1", "--discovery-cert=c"}, nil, []string{
			"both --discovery-token and --discovery-endpoints must be set",
			"--discovery-cert and --discovery-key must both be present or both absent",
			`multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, got := loadFor(t, tc.args, tc.env)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tc.want, "\n  "))
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	t.Chdir(t.TempDir())
	env := []string{"ETCD_NAME=from-env", "ETCD_ELECTION_TIMEOUT=2000", "ETCD_UNKNOWN=secret", "ETCD_VERIFY=all", "PATH=/bin"}
	c, set, faults := loadFor(t, []string{"--log-level", "warn"}, env)
	if len(faults) > 0 || c.Name != "from-env" || c.ElectionMillis != 2000 || c.LogLevel != "warn" {
		t.Errorf("flags and environment: %v, %+v", faults, c)
	}
	want := []envUse{{"ETCD_ELECTION_TIMEOUT", "2000", true}, {"ETCD_NAME", "from-env", true}, {"ETCD_UNKNOWN", "", false}}
	if !slices.Equal(set.env, want) {
		t.Errorf("environment %v, want %v", set.env, want)
	}
	if _, _, faults := loadFor(t, []string{"--name", "from-flag"}, env); len(faults) != 1 || !strings.HasPrefix(faults[0], "conflicting environment variable ETCD_NAME is shadowed") {
		t.Errorf("a flag and its variable: %q", faults)
	}
	file := writeFile(t, "name: from-file\n")
	for _, how := range []struct{ args, env []string }{
		{[]string{"--name", "from-flag", "--config-file", file}, env},
		{nil, append(env, "ETCD_CONFIG_FILE="+file)},
	} {
		c, set, faults = loadFor(t, how.args, how.env)
		if len(faults) > 0 || c.Name != "from-file" || c.ElectionMillis != 1000 || len(set.env) > 0 {
			t.Errorf("a file stands alone: %v, %+v", faults, c)
		}
	}
}

// The shape of the sample file that comes with etcd: nulls, settings of the
// past, nested sections, numbers for durations.
const sampleFile = `# This is the configuration file for the etcd server.
name: 'default'
data-dir:
wal-dir:
snapshot-count: 5000
heartbeat-interval: 100
election-timeout: 1500
quota-backend-bytes: 0
listen-peer-urls: http://localhost:2380
listen-client-urls: http://localhost:2379
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://localhost:2380
advertise-client-urls: http://localhost:2379
discovery:
discovery-fallback: 'proxy'
discovery-proxy:
discovery-srv:
initial-cluster:
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
proxy-failure-wait: 5000
client-transport-security:
  cert-file:
  key-file:
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
peer-transport-security:
  cert-file:
  allowed-cn:
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [stderr]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: "1"
watch-progress-notify-interval: 600000000
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
tls-min-version: 'TLS1.2'
tls-max-version: 'TLS1.3'
`

func TestConfigFile(t *testing.T) {
	t.Chdir(t.TempDir())
	c, _, faults := loadFor(t, []string{"--config-file", writeFile(t, sampleFile)}, nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if c.SnapshotCount != 5000 || c.ElectionMillis != 1500 || c.StrictReconfigCheck || !c.EnablePprof || c.LogLevel != "debug" ||
		c.WatchProgress != 600*time.Millisecond || c.LogOutputs.String() != "stderr" || c.DataDir != "default.etcd" {
		t.Errorf("%+v", c)
	}
	for _, tc := range []struct{ file, fault string }{
		{"client-transport-security:\n  cert-file: a.pem\n", "--cert-file: KeyFile and CertFile must both be present"},
		{"client-transport-security: yes\n", "--config-file FILE: invalid client-transport-security"},
		{"election-timeout: soon\n", "--config-file FILE: invalid value soon for election-timeout: parse error"},
		{"name: {a: b}\n", "--config-file FILE: invalid value map[a:b] for name: cannot be a map[string]interface {}"},
		{"feature-gates: Nope=true\n", "--config-file FILE: invalid value Nope=true for feature-gates: unrecognized feature gate: Nope"},
		{"discovery-config: {token: t}\n", "both --discovery-token and --discovery-endpoints must be set"},
		{"[", "--config-file"},
	} {
		file := writeFile(t, tc.file)
		_, _, faults := loadFor(t, []string{"--config-file", file}, nil)
		if len(faults) != 1 || !strings.HasPrefix(strings.Replace(faults[0], file, "FILE", 1), tc.fault) {
			t.Errorf("%q: %q, want %q", tc.file, faults, tc.fault)
		}
	}
}

// TestConfigFileSections sets what lies in sections, and sees that the same keys
// on the top level are ignored, as etcd ignores them.
func TestConfigFileSections(t *testing.T) {
	t.Chdir(t.TempDir())
	c, set, faults := loadFor(t, []string{"--config-file", writeFile(t, `
Name: m
cert-file: ignored
client-cert-auth: true
peer-cert-allowed-cn: ignored
socket-reuse-port: true
grpc-additional-server-options:
client-transport-security:
  Cert-File: c
  key-file: k
  client-cert-file: cc
  client-key-file: ck
  client-cert-auth: true
  trusted-ca-file: ca
  crl-file: crl
  allowed-cn: [alice, bob]
  skip-client-san-verification: true
  unknown: 1
peer-transport-security:
  cert-file: pc
  key-file: pk
  allowed-hostname: [a, b]
  skip-client-san-verification: true
socket-options:
  reuse-address: true
discovery-config: {client: {secure: {insecure-transport: false}, auth: {username: u, password: secret}}}
cors: http://a:1,http://b:2
host-whitelist: b,a
feature-gates: "AllAlpha=true,LeaseCheckpoint=false,LeaseCheckpointPersist=false"
listen-metrics-urls: http://127.0.0.1:1
`)}, nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	wantClient := certs.Config{CertFile: "c", KeyFile: "k", ClientCertFile: "cc", ClientKeyFile: "ck", ClientCertAuth: true, TrustedCAFile: "ca",
		CRLFile: "crl", AllowedCNs: []string{"alice", "bob"}, SkipClientSANVerify: true, MinVersion: tls.VersionTLS12}
	if !reflect.DeepEqual(c.ClientTLS.Config, wantClient) {
		t.Errorf("clients: %+v", c.ClientTLS)
	}
	wantPeer := certs.Config{CertFile: "pc", KeyFile: "pk", AllowedHostnames: []string{"a", "b"}, SkipClientSANVerify: true, MinVersion: tls.VersionTLS12}
	if !reflect.DeepEqual(c.PeerTLS.Config, wantPeer) {
		t.Errorf("peers: %+v", c.PeerTLS)
	}
	if c.Name != "m" || c.ReusePort || !c.ReuseAddress || c.CORS.String() != "http://a:1,http://b:2" || c.HostWhitelist.String() != "a,b" ||
		!c.Features.Enabled(gateStopOnDefrag) || c.Features.Enabled(gateLeaseCheckpoint) || c.ListenMetricsURLs.String() != "http://127.0.0.1:1" {
		t.Errorf("%+v", c)
	}
	for _, f := range set.settings() {
		if strings.Contains(f.String, "secret") {
			t.Errorf("%s is shown", f.Key)
		}
	}
}

func TestFeatureGates(t *testing.T) {
	for _, tc := range []struct{ set, want, fault string }{
		{set: "", want: ""},
		{set: "StopGRPCServiceOnDefrag=true", want: "StopGRPCServiceOnDefrag=true"},
		{set: " PriorityRequest = 1 ,", want: "PriorityRequest=true"},
		{set: "AllBeta=false,FastLeaseKeepAlive=true", want: "AllBeta=false,FastLeaseKeepAlive=true,TxnModeWriteWithSharedBuffer=false"},
		{set: "PriorityRequest", fault: "missing bool value for PriorityRequest"},
		{set: "PriorityRequest=maybe", fault: `invalid value of PriorityRequest=maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax`},
		{set: "DistributedTracing=true", fault: "unrecognized feature gate: DistributedTracing"},
	} {
		var g featureGates
		err := g.Set(tc.set)
		switch {
		case err != nil && err.Error() != tc.fault:
			t.Errorf("%q: %v", tc.set, err)
		case err == nil && g.String() != tc.want:
			t.Errorf("%q: %s, want %s", tc.set, g.String(), tc.want)
		}
	}
	var g featureGates
	if err := g.Set("AllAlpha=true,FastLeaseKeepAlive=true,StopGRPCServiceOnDefrag=false"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(g.idle(), " "); got != "LeaseCheckpoint LeaseCheckpointPersist PriorityRequest" {
		t.Errorf("without effect: %s", got)
	}
}

func TestSecretsAreMasked(t *testing.T) {
	got := maskArgs([]string{"quire", "--discovery-password=hunter2", "-discovery-user", "me:hunter2", "--name", "discovery-user", "--discovery-user"})
	if want := "quire --discovery-password=*** -discovery-user *** --name discovery-user --discovery-user"; strings.Join(got, " ") != want {
		t.Errorf("%v", got)
	}
	_, set, faults := loadFor(t, nil, []string{"ETCD_DISCOVERY_PASSWORD=hunter2"})
	if len(faults) > 0 || len(set.env) != 1 || set.env[0].value != masked {
		t.Errorf("%v, %+v", faults, set.env)
	}
}

func TestOwnHostIsAdvertised(t *testing.T) {
	host := ownHost()
	if host == "" {
		t.Skip("this machine has no route")
	}
	c, _, faults := loadFor(t, []string{"--config-file", writeFile(t, "name: m\nlisten-client-urls: http://0.0.0.0:1\nlisten-peer-urls: http://0.0.0.0:2\n")}, nil)
	if len(faults) > 0 || c.AdvertiseClientURLs.String() != "http://"+host+":1" || c.InitialCluster != "m=http://"+host+":2" {
		t.Errorf("%v, %s, %s", faults, c.AdvertiseClientURLs.String(), c.InitialCluster)
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add([]byte(sampleFile))
	f.Add([]byte("client-transport-security: {allowed-cn: [[a]], auto-tls: 1e9}\ndiscovery-config: {client: {secure: {cert: x}}}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		cfg := newConfig()
		set := newFlagSet(cfg)
		if len(set.parseYAML(raw)) == 0 {
			cfg.settle()
			cfg.DataDir = "nowhere"
			_ = cfg.Validate()
		}
	})
}

func FuzzURLs(f *testing.F) {
	for _, s := range []string{"http://localhost:1,https://[::1]:2", "unix://a/b", "unixs:c", "http://h", "ftp://a:1", "http://a:1/p?q#f", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var l urlList
		if l.Set(s) != nil || s == "" {
			return
		}
		var again urlList
		if err := again.Set(l.String()); err != nil && !strings.Contains(s, "%2") {
			t.Errorf("%q became %q, which is refused: %v", s, l.String(), err)
		}
	})
}

func TestBootstrapFlagsCountOnlyOnce(t *testing.T) {
	t.Chdir(t.TempDir())
	args := []string{"--initial-cluster", "a=http://h:1,b=http://h:2", "--name", "c", "--data-dir", "d"}
	if _, _, faults := loadFor(t, args, nil); len(faults) != 1 {
		t.Errorf("fresh directory: %q", faults)
	}
	if err := os.MkdirAll("d/store", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, faults := loadFor(t, args, nil); len(faults) != 0 {
		t.Errorf("initialised directory: %q", faults)
	}
}

var update = flag.Bool("update", false, "write docs/flags.md anew")

// TestFlagsPage keeps the page of the documentation that lists the flags.
func TestFlagsPage(t *testing.T) {
	var want bytes.Buffer
	want.WriteString(flagsPageHead)
	newFlagSet(newConfig()).allFlags(&want)
	want.WriteString("```\n")
	page := filepath.Join("..", "..", "docs", "flags.md")
	if *update {
		if err := os.WriteFile(page, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("docs/flags.md is not what quire help prints (%v); go test ./cmd/quire -run FlagsPage -update", err)
	}
}

const flagsPageHead = `# Flags

What "quire help flags" prints; a test keeps this page the same. Flags, environment
and configuration file are etcd's, with etcd's precedence: a configuration file
stands alone; otherwise a setting comes from its flag or from its environment
variable (both at once are refused), and else from the default. All faults of a configuration are reported together, and
nothing is touched before it has none.

` + "```text\n"

func TestRetention(t *testing.T) {
	for _, tc := range []struct {
		mode, s string
		want    retention
		fault   bool
	}{
		{"periodic", "0", retention{}, false},
		{"periodic", "2", retention{period: 2 * time.Hour}, false},
		{"periodic", "90s", retention{period: 90 * time.Second}, false},
		{"periodic", "soon", retention{}, true},
		{"periodic", "-1h", retention{}, true},
		{"revision", "1000", retention{revisions: 1000}, false},
		{"revision", "1h", retention{}, true},
		{"", "0", retention{}, true},
	} {
		got, err := parseRetention(tc.mode, tc.s)
		if got != tc.want || (err != nil) != tc.fault {
			t.Errorf("%s %s: %v, %v", tc.mode, tc.s, got, err)
		}
	}
}

// TestLocalAddress: the first advertised address that reaches beyond this machine,
// and only with the gate.
func TestLocalAddress(t *testing.T) {
	for _, tc := range []struct{ urls, gate, want string }{
		{"http://10.0.0.7:2380", "SetMemberLocalAddr=false", "<nil>"},
		{"http://10.0.0.7:2380", "SetMemberLocalAddr=true", "10.0.0.7"},
		{"http://localhost:2380,http://127.0.0.1:2380,http://0.0.0.0:2380,http://[fd00::7]:2380", "AllAlpha=true", "fd00::7"},
		{"http://m1.example:2380", "SetMemberLocalAddr=true", "<nil>"},
	} {
		c := newConfig()
		if err := c.Features.Set(tc.gate); err != nil {
			t.Fatal(err)
		}
		urls, err := parseURLs(strings.Split(tc.urls, ","))
		if err != nil {
			t.Fatal(err)
		}
		c.AdvertisePeerURLs = urls
		if got := c.localAddress(zap.NewNop()).String(); got != tc.want {
			t.Errorf("%s with %s: %s, want %s", tc.urls, tc.gate, got, tc.want)
		}
	}
}
