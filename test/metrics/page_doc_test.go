package metrics

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"quire/test/harness"
)

// TestDocumented: docs/metrics.md names every family that is shown, and no other.
func TestDocumented(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("the page is about quire")
	}
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	tables, _, _ := strings.Cut(string(text), "## Left out")
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z][a-z0-9_]+)`").FindAllStringSubmatch(tables, -1) {
		named[m[1]] = true
	}
	shown := after(t, harness.Start(t, "--metrics=extensive"))
	for name := range shown {
		common := strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "quire_")
		if !named[name] && !common {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
	for name := range named {
		isFamily := strings.HasPrefix(name, "etcd_") || strings.HasPrefix(name, "grpc_") || strings.HasPrefix(name, "os_")
		// What is counted of peers and of failures appears with the first one.
		late := strings.HasPrefix(name, "etcd_network_")
		if _, ok := shown[strings.TrimSuffix(name, "_count")]; isFamily && !ok && !late {
			t.Errorf("docs/metrics.md names %s, which is not shown", name)
		}
	}
}
