package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// exception is a line of the list: a pattern of test names and why they cannot apply.
type exception struct {
	pattern string
	reason  string
	match   *regexp.Regexp
}

type exceptions []*exception

// readExceptions reads lines "PATTERN  # reason"; the pattern is a regular expression for the whole name, subtest
// included. A line without a reason is refused.
func readExceptions(path string) (list exceptions, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		pattern, reason, _ := strings.Cut(line, " # ")
		e := &exception{pattern: strings.TrimSpace(pattern), reason: strings.TrimSpace(reason)}
		if e.reason == "" {
			return nil, fmt.Errorf("%s:%d: %q has no reason", path, n, e.pattern)
		}
		if e.match, err = regexp.Compile("^(?:" + e.pattern + ")$"); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		list = append(list, e)
	}
	return list, s.Err()
}

func (l exceptions) find(name string) *exception {
	for _, e := range l {
		if e.match.MatchString(name) {
			return e
		}
	}
	return nil
}
