package cluster

import (
	"errors"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"quire/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patiently tries again what fails because members are not connected for long enough yet, or a connection has just
// ended, as may be on a busy machine.
func patiently[T any](t testing.TB, try func() (T, error)) T {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		v, err := try()
		if err == nil {
			return v
		}
		var known rpctypes.EtcdError
		code := status.Code(err)
		if errors.As(err, &known) {
			code = known.Code()
		}
		if code != codes.Unavailable || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
