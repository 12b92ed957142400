package lockstep

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
	"quire/test/harness"
)

// This file adds the requests about the server and its cluster. Members have other IDs on the two sides, so a step names
// them by number: 1 is the server itself, 2 and on are those that the history has added, in order. 1000 and on are IDs of
// nobody. In answers IDs become numbers again.
//
// Left out: adding a voter, which loses the quorum (TestSecondVoter); an alarm of an unknown action, which ends etcd; the
// URLs of another member that are none, which end etcd; a downgrade that is let begin, which moves the cluster version
// some time later (TestDowngradeMoves).

var upkeepMethods = map[string]method{
	"Alarm":      {path: "/etcdserverpb.Maintenance/Alarm", request: newer[pb.AlarmRequest](), response: newer[pb.AlarmResponse]()},
	"Status":     {path: "/etcdserverpb.Maintenance/Status", request: newer[pb.StatusRequest](), response: newer[pb.StatusResponse]()},
	"Defragment": {path: "/etcdserverpb.Maintenance/Defragment", request: newer[pb.DefragmentRequest](), response: newer[pb.DefragmentResponse]()},
	"Hash":       {path: "/etcdserverpb.Maintenance/Hash", request: newer[pb.HashRequest](), response: newer[pb.HashResponse]()},
	"MoveLeader": {path: "/etcdserverpb.Maintenance/MoveLeader", request: newer[pb.MoveLeaderRequest](), response: newer[pb.MoveLeaderResponse]()},
	"Downgrade":  {path: "/etcdserverpb.Maintenance/Downgrade", request: newer[pb.DowngradeRequest](), response: newer[pb.DowngradeResponse]()},
	"MemberList": {path: "/etcdserverpb.Cluster/MemberList", request: newer[pb.MemberListRequest](), response: newer[pb.MemberListResponse]()},
	"MemberAdd":  {path: "/etcdserverpb.Cluster/MemberAdd", request: newer[pb.MemberAddRequest](), response: newer[pb.MemberAddResponse]()},
	"MemberRemove": {path: "/etcdserverpb.Cluster/MemberRemove", request: newer[pb.MemberRemoveRequest](),
		response: newer[pb.MemberRemoveResponse]()},
	"MemberUpdate": {path: "/etcdserverpb.Cluster/MemberUpdate", request: newer[pb.MemberUpdateRequest](),
		response: newer[pb.MemberUpdateResponse]()},
	"MemberPromote": {path: "/etcdserverpb.Cluster/MemberPromote", request: newer[pb.MemberPromoteRequest](),
		response: newer[pb.MemberPromoteResponse]()},
}

func init() {
	for name, m := range upkeepMethods {
		methods[name] = m
	}
}

// roll is what a side knows of the members: their IDs in the order of their numbers.
type roll struct{ ids []uint64 }

func (r *roll) id(number uint64) uint64 {
	if number >= 1 && number <= uint64(len(r.ids)) {
		return r.ids[number-1]
	}
	return number
}

func (r *roll) number(id uint64) uint64 {
	if i := slices.Index(r.ids, id); i >= 0 {
		return uint64(i + 1)
	}
	return id
}

// out gives the members of a request the IDs of this side.
func (r *roll) out(st step) step {
	if st.msg == nil {
		return st
	}
	st.msg = proto.Clone(st.msg)
	switch m := st.msg.(type) {
	case *pb.AlarmRequest:
		m.MemberID = r.id(m.MemberID)
	case *pb.MoveLeaderRequest:
		m.TargetID = r.id(m.TargetID)
	case *pb.MemberRemoveRequest:
		m.ID = r.id(m.ID)
	case *pb.MemberUpdateRequest:
		m.ID = r.id(m.ID)
	case *pb.MemberPromoteRequest:
		m.ID = r.id(m.ID)
	}
	return st
}

var memberInText = regexp.MustCompile(`memberID:(\d+)`)

// in gives the members of an answer their numbers, and takes out what may differ.
func (r *roll) in(answer proto.Message) {
	switch m := answer.(type) {
	case *pb.AlarmResponse:
		for _, a := range m.Alarms {
			a.MemberID = r.number(a.MemberID)
		}
		slices.SortFunc(m.Alarms, func(a, b *pb.AlarmMember) int { return strings.Compare(a.String(), b.String()) })
	case *pb.StatusResponse:
		m.Leader = r.number(m.Leader)
		m.DbSize, m.DbSizeInUse = min(m.DbSize, 1), 0
		m.RaftIndex, m.RaftAppliedIndex, m.RaftTerm = min(m.RaftIndex, 1), min(m.RaftAppliedIndex, 1), min(m.RaftTerm, 1)
		for i, e := range m.Errors {
			e = strings.Join(strings.Fields(e), " ")
			m.Errors[i] = memberInText.ReplaceAllStringFunc(e, func(s string) string {
				var id uint64
				fmt.Sscanf(s, "memberID:%d", &id)
				return fmt.Sprint("memberID:", r.number(id))
			})
		}
		slices.Sort(m.Errors)
	case *pb.HashResponse:
		m.Hash = 0
	case *pb.MemberListResponse:
		r.members(m.Members)
	case *pb.MemberAddResponse:
		if r.number(m.Member.ID) == m.Member.ID {
			r.ids = append(r.ids, m.Member.ID)
		}
		r.members([]*pb.Member{m.Member})
		r.members(m.Members)
	case *pb.MemberRemoveResponse:
		r.members(m.Members)
	case *pb.MemberUpdateResponse:
		r.members(m.Members)
	case *pb.MemberPromoteResponse:
		r.members(m.Members)
	}
}

// lastSteps is how many steps a failure shows.
const lastSteps = 100

var ownURL = regexp.MustCompile(`^http://127\.0\.0\.1:\d+$`)

func (r *roll) members(ms []*pb.Member) {
	for _, m := range ms {
		m.ID = r.number(m.ID)
		for _, urls := range [][]string{m.PeerURLs, m.ClientURLs} {
			for i := range urls {
				urls[i] = ownURL.ReplaceAllString(urls[i], "the server's own")
			}
		}
	}
	slices.SortFunc(ms, func(a, b *pb.Member) int { return int(a.ID) - int(b.ID) })
}

// declared is an answer with the code that etcd declares for its text: it sends this one without, by oversight (see
// docs/differences.md).
func declared(a answer) answer {
	if a.code == "Unknown" && a.text == "etcdserver: re-configuration failed due to not enough started members" {
		a.code = "FailedPrecondition"
	}
	return a
}

// doUpkeep is pair.do with that.
func (p *pair) doUpkeep(t *testing.T, s step) (theirs answer, diff string) {
	t.Helper()
	theirs = declared(p.theirs.do(t, s))
	return theirs, difference(theirs, p.ours.do(t, s))
}

// meet learns the ID of the side's only member.
func (s *side) meet(t *testing.T) {
	t.Helper()
	a := s.call(step{method: "MemberList", msg: &pb.MemberListRequest{}})
	if a.code != "" {
		t.Fatalf("%s: member list: %s %s", s.name, a.code, a.text)
	}
	s.awaitVersion(t, "3.7.0")
	s.roll.ids = []uint64{a.responses[0].(*pb.MemberListResponse).Members[0].ID}
}

// awaitVersion waits until the side's store has the version: it follows the cluster's some time later.
func (s *side) awaitVersion(t *testing.T, version string) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		a := s.call(step{method: "Status", msg: &pb.StatusRequest{}})
		if a.code == "" && a.responses[0].(*pb.StatusResponse).StorageVersion == version {
			return
		}
		if time.Since(start) > stepLimit {
			t.Fatalf("%s: the version is not %s: %s", s.name, version, a)
		}
	}
}

// upkeep makes random steps of this file's kinds, with some writes in between.
type upkeep struct {
	random *rand.Rand
	added  int
	writes *generator
	// refused: an update was refused. etcd carries it out at the next start, in memory, so there is none.
	refused bool
	calm    bool // no update is ever refused
}

func (u *upkeep) pick(n int) bool { return u.random.IntN(n) == 0 }

// member is the number of a member that may be there, or of nobody.
func (u *upkeep) member() uint64 {
	if u.pick(6) {
		return 1000 + u.random.Uint64N(3)
	}
	if u.pick(20) {
		return 0
	}
	return 1 + u.random.Uint64N(uint64(u.added)+2)
}

func (u *upkeep) next() step {
	n := u.random.IntN(100)
	for _, kind := range []struct {
		weight int
		make   func() (string, proto.Message)
	}{
		{16, u.alarm},
		{8, func() (string, proto.Message) { return "Status", &pb.StatusRequest{} }},
		{10, u.downgrade},
		{8, func() (string, proto.Message) { return "MemberList", &pb.MemberListRequest{Linearizable: u.pick(2)} }},
		{9, u.add},
		{8, func() (string, proto.Message) { return "MemberRemove", &pb.MemberRemoveRequest{ID: u.member()} }},
		{8, func() (string, proto.Message) { return "MemberPromote", &pb.MemberPromoteRequest{ID: u.member()} }},
		{9, u.update},
		{6, func() (string, proto.Message) { return "MoveLeader", &pb.MoveLeaderRequest{TargetID: u.member()} }},
		{2, func() (string, proto.Message) { return "Hash", &pb.HashRequest{} }},
		{2, func() (string, proto.Message) { return "Defragment", &pb.DefragmentRequest{} }},
	} {
		if n -= kind.weight; n < 0 {
			name, msg := kind.make()
			return step{method: name, msg: msg}
		}
	}
	if u.pick(10) && !u.refused {
		return step{method: restart}
	}
	for {
		switch s := u.writes.next(); s.method { // no watches: what an alarm does to them is not this test's
		case "Put", "Range", "DeleteRange", "Txn", "Grant", "Revoke", "Leases", "TimeToLive", "HashKV":
			return s
		}
	}
}

func (u *upkeep) alarm() (string, proto.Message) {
	r := &pb.AlarmRequest{Action: pb.AlarmRequest_AlarmAction(u.random.IntN(3)), Alarm: pb.AlarmType(u.random.IntN(3))}
	if u.pick(3) { // more is disarmed than is raised
		r.Action = pb.AlarmRequest_DEACTIVATE
	}
	if u.pick(12) {
		r.Alarm = 7
	}
	if !u.pick(3) {
		r.MemberID = uint64(u.random.IntN(3))
	}
	if r.Alarm == pb.AlarmType_CORRUPT && r.Action == pb.AlarmRequest_ACTIVATE && r.MemberID == 1 {
		r.MemberID = 2 // a member that is called divergent itself answers no reads here, see docs/differences.md
	}
	return "Alarm", r
}

func (u *upkeep) downgrade() (string, proto.Message) {
	versions := []string{"3.6.0", "3.6", "3.5.0", "3.7.0", "3.7", "3.8.0", "", "3", "three", "3.6.x", "v3.6", "2.6.0", "3.6.0-rc.1", "-1.-1"}
	r := &pb.DowngradeRequest{Action: pb.DowngradeRequest_DowngradeAction(u.random.IntN(3)), Version: versions[u.random.IntN(len(versions))]}
	if r.Action == pb.DowngradeRequest_ENABLE && strings.HasPrefix(r.Version, "3.6") && r.Version != "3.6.x" {
		r.Action = pb.DowngradeRequest_VALIDATE
	}
	if u.pick(15) {
		r.Action = 5
	}
	return "Downgrade", r
}

func (u *upkeep) add() (string, proto.Message) {
	if u.pick(2) {
		bad := [][]string{nil, {""}, {"x"}, {"http://a"}, {"http://a:1/path"}, {"ftp://a:1"}, {"http://a:1", "b"}, {"http://[::1"}, {"localhost:2380"}}
		return "MemberAdd", &pb.MemberAddRequest{PeerURLs: bad[u.random.IntN(len(bad))], IsLearner: u.pick(2)}
	}
	u.added++
	// URLs that come again are refused only while their member is there, and a member has the second in its ID: so most
	// are new.
	urls := []string{fmt.Sprintf("http://z%d:1", u.added)}
	if u.pick(3) {
		urls = []string{fmt.Sprintf(" https://b%d:1", u.added), "http://a:2", fmt.Sprintf("unix://sock%d:3", u.added)}
	}
	return "MemberAdd", &pb.MemberAddRequest{PeerURLs: urls, IsLearner: true}
}

func (u *upkeep) update() (string, proto.Message) {
	r := &pb.MemberUpdateRequest{ID: u.member(), PeerURLs: []string{fmt.Sprintf("http://u%d:1", u.random.IntN(4))}}
	if u.calm {
		u.added++
		return "MemberUpdate", &pb.MemberUpdateRequest{ID: 1, PeerURLs: []string{fmt.Sprintf("http://v%d:1", u.added)}}
	}
	switch u.random.IntN(5) {
	case 0:
		r.PeerURLs = append(r.PeerURLs, "http://a:2")
	case 1:
		r.ID, r.PeerURLs = []uint64{1, 1000}[u.random.IntN(2)], [][]string{nil, {"rubbish"}, {"http://b:1", "http://a:1", "http://b:1"}}[u.random.IntN(3)]
	}
	return "MemberUpdate", r
}

// TestUpkeep is TestLockstep for the requests about server and cluster.
func TestUpkeep(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	steps := min(*requests, 1500)
	t.Logf("seed %d: go test ./lockstep -run TestUpkeep -seed %d -requests %d", seed, seed, steps)
	p := newPair(t)
	u := &upkeep{random: rand.New(rand.NewPCG(seed, 1)), writes: newGenerator(seed), calm: seed%2 == 0}
	counts := map[string]int{}
	var done []string
	for range steps {
		s := u.next()
		done = append(done, fmt.Sprint(s))
		theirs, diff := p.doUpkeep(t, s)
		if diff != "" {
			t.Fatalf("step %d: %.2000v\n%s\nthe last steps:\n%s", len(done)-1, s, diff, strings.Join(done[max(0, len(done)-lastSteps):], "\n"))
		}
		u.writes.learn(s, theirs)
		u.refused = u.refused || s.method == "MemberUpdate" && theirs.code != ""
		counts[s.method+" "+theirs.code]++
	}
	t.Log(counts)
}

// TestDowngradeMoves lets a downgrade begin, waits until the version has moved, and calls it off.
func TestDowngradeMoves(t *testing.T) {
	p := newPair(t)
	same := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			s, err := parse(line)
			if err != nil {
				t.Fatal(err)
			}
			if _, diff := p.doUpkeep(t, s); diff != "" {
				t.Fatalf("%s\n%s", line, diff)
			}
		}
	}
	await := func(version string) {
		t.Helper()
		p.ours.awaitVersion(t, version)
		p.theirs.awaitVersion(t, version)
	}
	await("3.7.0")
	same("Status", `Downgrade action:ENABLE version:"3.6"`)
	await("3.6.0")
	again := []string{"Status", `Downgrade action:VALIDATE version:"3.6.0"`, `Downgrade action:VALIDATE version:"3.5.0"`,
		`Downgrade action:ENABLE version:"3.5.0"`, `Downgrade action:ENABLE version:"3.6.0"`}
	same(again...)
	same(restart)
	await("3.6.0") // etcd may have lost it to the kill, and moves again
	same(again...)
	for _, s := range []*side{p.ours, p.theirs} {
		if !s.server.Log.Wait("remotes server has mismatching etcd version", stepLimit) {
			t.Errorf("%s does not say that it still runs another version", s.name)
		}
	}
	same("Downgrade action:CANCEL")
	await("3.7.0")
	same("Status", "Downgrade action:CANCEL", `Downgrade action:VALIDATE version:"3.6.0"`)
}

// TestSecondVoter adds a voter that never comes: its addition is the last thing that is agreed on.
func TestSecondVoter(t *testing.T) {
	p := &pair{
		ours:   newSide(t, "the server under test", harness.Start(t, "--heartbeat-interval", "20", "--election-timeout", "200")),
		theirs: newSide(t, "upstream", harness.StartUpstream(t, "--heartbeat-interval", "20", "--election-timeout", "200")),
	}
	p.ours.meet(t)
	p.theirs.meet(t)
	for _, line := range []string{
		`Put key:"k" value:"v"`,
		`MemberAdd peerURLs:"http://127.0.0.1:1"`,
		`MemberList`,
		`Range key:"k" serializable:true`,
		`MemberAdd peerURLs:"http://127.0.0.1:2"`,
		`MemberRemove ID:1`,
		`Put key:"k" value:"w"`,
		`Range key:"k"`,
		`MemberList linearizable:true`,
		`Status`,
		`MoveLeader targetID:2`,
	} {
		s, err := parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if s.method == "Status" { // both have noticed that they lead nobody
			time.Sleep(time.Second)
		}
		if _, diff := p.doUpkeep(t, s); diff != "" {
			t.Errorf("%s\n%s", line, diff)
		}
	}
}
