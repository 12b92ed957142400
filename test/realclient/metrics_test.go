package realclient

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"quire/test/harness"
)

// httpGet reads a page of the client port.
func httpGet(t *testing.T, s *harness.Server, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + s.Endpoint + path)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp.StatusCode, string(text)
}

// metric is the value of a metric without labels, or of one series written with its labels; -1 when it is not there.
func metric(t *testing.T, s *harness.Server, name string) float64 {
	t.Helper()
	_, body := httpGet(t, s, "/metrics")
	lines := bufio.NewScanner(strings.NewReader(body))
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			var value float64
			_, err := fmt.Sscan(text, &value)
			check(t, err)
			return value
		}
	}
	return -1
}
