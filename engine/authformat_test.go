package engine

import (
	"bytes"
	"encoding/hex"
	"testing"

	"google.golang.org/protobuf/proto"

	"quire/api/authpb"
	"quire/engine/auth"
)

func goldenAuthState() auth.State {
	return auth.State{Enabled: true, Revision: 4,
		Users: []*authpb.User{{Name: []byte("ann"), Password: []byte("hash"), Roles: []string{"r2"}},
			{Name: []byte("bob"), Options: &authpb.UserAddOptions{NoPassword: true}}},
		Roles: []*authpb.Role{{Name: []byte("r2"), KeyPermission: []*authpb.Permission{
			{PermType: authpb.Permission_READWRITE, Key: []byte("a"), RangeEnd: []byte{0}}}}}}
}

func TestGoldenAuth(t *testing.T) {
	as := AppendAs(nil, auth.Identity{User: "ann", Revision: 7, Known: true})
	as = AppendOp(as, OpPut, []byte{0x0a, 0x01})
	login := AppendOp(nil, OpAuthenticate, AppendAuthenticate(nil, "ann", "pr"))
	e := newDecoder()
	st := stateSnapshot{leases: e.lessor.freeze(1), auth: goldenAuthState()}
	var blob bytes.Buffer
	if err := st.writeTo(&blob); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][2]string{
		"as":           {hex.EncodeToString(as), goldenAs},
		"authenticate": {hex.EncodeToString(login), goldenAuthenticate},
		"state":        {hex.EncodeToString(blob.Bytes()), goldenState},
	} {
		if got[0] != got[1] {
			t.Errorf("%s:\n got %s\nwant %s", name, got[0], got[1])
		}
	}
	if err := e.readState(blob.Bytes()); err != nil {
		t.Fatal(err)
	}
	sameAuth(t, e.AuthState(), goldenAuthState())
}

// A state blob of a program that knew no users is one without any.
func TestStateWithoutAuth(t *testing.T) {
	e := newDecoder()
	b := appendField(appendField(nil, fieldVersion, uvarints(stateVersion)), fieldEnd, nil)
	if err := e.readState(b); err != nil {
		t.Fatal(err)
	}
	sameAuth(t, e.AuthState(), auth.State{Revision: 1})
}

func sameAuth(t *testing.T, got, want auth.State) {
	t.Helper()
	got.Sort()
	want.Sort()
	same := got.Enabled == want.Enabled && got.Revision == want.Revision && len(got.Users) == len(want.Users) && len(got.Roles) == len(want.Roles)
	for i := 0; same && i < len(got.Users); i++ {
		same = proto.Equal(got.Users[i], want.Users[i])
	}
	for i := 0; same && i < len(got.Roles); i++ {
		same = proto.Equal(got.Roles[i], want.Roles[i])
	}
	if !same {
		t.Fatalf("auth state:\n got %v\nwant %v", got, want)
	}
}
