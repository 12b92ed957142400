package gateway

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

var (
	seed     = flag.Uint64("seed", 0, "seed of the random requests (0: the time)")
	requests = flag.Int("requests", 1500, "random requests")
)

// randomPaths are the calls that a random history is made of, with the message that each takes.
var randomPaths = []struct{ path, message string }{
	{"/v3/kv/put", "etcdserverpb.PutRequest"},
	{"/v3/kv/range", "etcdserverpb.RangeRequest"},
	{"/v3/kv/deleterange", "etcdserverpb.DeleteRangeRequest"},
	{"/v3/kv/txn", "etcdserverpb.TxnRequest"},
	{"/v3/kv/compaction", "etcdserverpb.CompactionRequest"},
	{"/v3/lease/grant", "etcdserverpb.LeaseGrantRequest"},
	{"/v3/lease/revoke", "etcdserverpb.LeaseRevokeRequest"},
	{"/v3/lease/keepalive", "etcdserverpb.LeaseKeepAliveRequest"},
	{"/v3/lock/unlock", "v3lockpb.UnlockRequest"},
	{"/v3/election/proclaim", "v3electionpb.ProclaimRequest"},
	{"/v3/election/resign", "v3electionpb.ResignRequest"},
	{"/v3/election/leader", "v3electionpb.LeaderRequest"},
}

// laxNumber is what the protobuf library says of a number in quotes with something behind it; the version that upstream
// uses takes it for the number. Such a request is not sent to it.
var laxNumber = regexp.MustCompile(`invalid value for int64 field \w+: \\"-?\d+[^\d"]`)

// TestRandom sends the same random requests to both servers: fields of every kind, in every form that protobuf's JSON
// permits, now and then in a wrong one, or with bytes of the text changed.
func TestRandom(t *testing.T) {
	t.Parallel()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", *seed)
	p := startPair(t)
	g := &jsonMaker{Rand: rand.New(rand.NewPCG(*seed, 1))}
	for i := 0; i < *requests && !t.Failed(); i++ {
		call := randomPaths[g.IntN(len(randomPaths))]
		r := request{path: call.path, body: g.body(message(t, call.message))}
		if a := send(t, p.quire, r); laxNumber.MatchString(a.body) {
			continue
		} else if want := send(t, p.upstream, r); a != want {
			t.Errorf("%s %s\n--- got\n%s\n--- want\n%s", r.path, r.body, a, want)
		}
	}
}

func message(t *testing.T, name string) protoreflect.MessageDescriptor {
	t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		t.Fatal(err)
	}
	return d.(protoreflect.MessageDescriptor)
}

// jsonMaker makes the JSON text of messages.
type jsonMaker struct{ *rand.Rand }

func (g *jsonMaker) one(of ...string) string { return of[g.IntN(len(of))] }

func (g *jsonMaker) chance(in int) bool { return g.IntN(in) == 0 }

// body is a message, which one time in ten has become something else.
func (g *jsonMaker) body(m protoreflect.MessageDescriptor) string {
	text := []byte(g.message(m, 0))
	if g.chance(10) {
		for range 1 + g.IntN(3) {
			i := g.IntN(len(text))
			switch g.IntN(3) {
			case 0:
				text[i] = g.one(`"`, `{`, `}`, `[`, `]`, `,`, `:`, `0`, `\`, "\x00", "\xff", ` `)[0]
			case 1:
				text = append(text[:i], text[i+1:]...)
			default:
				text = text[:i]
			}
			if len(text) == 0 {
				return "{}"
			}
		}
	}
	return string(text)
}

// maxDepth of transactions in transactions.
const maxDepth = 3

func (g *jsonMaker) message(m protoreflect.MessageDescriptor, depth int) string {
	var fields []string
	chosen := map[string]bool{} // of each oneof at most one, as a rule
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if f.Message() != nil && depth >= maxDepth || g.chance(3) && f.Name() != "ID" {
			continue
		}
		if o := f.ContainingOneof(); o != nil {
			if chosen[string(o.Name())] && !g.chance(100) || g.chance(2) {
				continue
			}
			chosen[string(o.Name())] = true
		}
		name := string(f.Name())
		if g.chance(4) {
			name = f.JSONName()
		}
		fields = append(fields, fmt.Sprintf("%q%s:%s", name, g.one("", "", " "), g.field(f, depth)))
	}
	if g.chance(20) {
		fields = append(fields, `"unknown":{"a":[1,null,"x"]}`)
	}
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	return "{" + strings.Join(fields, g.one(",", ",", ", ", "\n,\t")) + "}"
}

func (g *jsonMaker) field(f protoreflect.FieldDescriptor, depth int) string {
	if !f.IsList() {
		return g.value(f, depth)
	}
	var items []string
	for range g.IntN(4) {
		items = append(items, g.value(f, depth))
	}
	return "[" + strings.Join(items, ",") + "]"
}

func (g *jsonMaker) value(f protoreflect.FieldDescriptor, depth int) string {
	if g.chance(150) {
		return g.one("null", "true", "{}", "[]", `""`, `"x"`, "1e3", "-0", "1.0", `"1"`, `"NaN"`)
	}
	switch f.Kind() {
	case protoreflect.MessageKind:
		return g.message(f.Message(), depth+1)
	case protoreflect.BytesKind:
		return g.bytes()
	case protoreflect.StringKind:
		b, _ := json.Marshal(g.one("a", "ü", "<&>", ""))
		return string(b)
	case protoreflect.BoolKind:
		return g.one("true", "false")
	case protoreflect.EnumKind:
		if g.chance(2) {
			return fmt.Sprint(g.IntN(f.Enum().Values().Len() + 1))
		}
		return fmt.Sprintf("%q", f.Enum().Values().Get(g.IntN(f.Enum().Values().Len())).Name())
	default:
		if f.Name() == "TTL" {
			return "1000" // none ends during the test, on one server a little before the other
		}
		return g.number()
	}
}

// bytes are a short key, in one of the alphabets of base64.
func (g *jsonMaker) bytes() string {
	raw := []byte(g.one("a", "b", "c", "d", "\xff\xfe", "e/1", "", "\x00"))
	enc := []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding}[g.IntN(4)]
	return fmt.Sprintf("%q", enc.EncodeToString(raw))
}

// number is a small one, mostly, in one of the forms of a 64-bit integer.
func (g *jsonMaker) number() string {
	n := g.IntN(6)
	if g.chance(4) {
		n = g.IntN(2000)
	}
	if g.chance(20) {
		n = -n
	}
	return fmt.Sprintf(g.one(`%d`, `"%d"`, `"%d"`), n)
}
