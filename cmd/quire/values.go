package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// urlList is a flag value: comma-separated URLs, sorted, each once.
type urlList []url.URL

// String implements flag.Value.
func (l *urlList) String() string { return strings.Join(l.strings(), ",") }

// strings returns the URLs as text.
func (l urlList) strings() []string {
	out := make([]string, len(l))
	for i := range l {
		out[i] = l[i].String()
	}
	return out
}

// Set implements flag.Value.
func (l *urlList) Set(s string) error {
	if s == "" {
		return nil // as in etcd, the default stays
	}
	urls, err := parseURLs(strings.Split(s, ","))
	if err != nil {
		return err
	}
	*l = urls
	return nil
}

func parseURLs(raw []string) (urlList, error) {
	var list urlList
	for _, in := range raw {
		in = strings.TrimSpace(in)
		u, err := url.Parse(in)
		if err != nil {
			return nil, err
		}
		switch u.Scheme {
		case "http", "https":
			if _, _, err := net.SplitHostPort(u.Host); err != nil {
				return nil, fmt.Errorf(`URL address does not have the form "host:port": %s`, in)
			}
			if u.Path != "" {
				return nil, fmt.Errorf("URL must not contain a path: %s", in)
			}
		case "unix", "unixs":
		default:
			return nil, fmt.Errorf("URL scheme must be http, https, unix, or unixs: %s", in)
		}
		list = append(list, *u)
	}
	if len(list) == 0 {
		return nil, errors.New("no valid URLs given")
	}
	slices.SortFunc(list, func(a, b url.URL) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(list, func(a, b url.URL) bool { return a.String() == b.String() }), nil
}

func mustURLs(s string) urlList {
	var l urlList
	if err := l.Set(s); err != nil {
		panic(err)
	}
	return l
}

// isUnix tells whether the URL names a socket file.
func isUnix(u url.URL) bool { return u.Scheme == "unix" || u.Scheme == "unixs" }

// isSecure tells whether the URL asks for TLS.
func isSecure(u url.URL) bool { return u.Scheme == "https" || u.Scheme == "unixs" }

// stringList is a flag value: comma-separated words, sorted, each once.
type stringList []string

// String implements flag.Value.
func (l *stringList) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *stringList) Set(s string) error {
	words := strings.Split(s, ",")
	slices.Sort(words)
	*l = slices.Compact(words)
	return nil
}

// wordList is a flag value: comma-separated words as they come.
type wordList []string

// String implements flag.Value.
func (l *wordList) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *wordList) Set(s string) error {
	*l = strings.Split(s, ",")
	return nil
}

// anyone stands for every origin and every host name.
const anyone = "*"

// originList is a flag value: * or comma-separated URLs, sorted, each once.
type originList []string

// String implements flag.Value.
func (l *originList) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *originList) Set(s string) error {
	if s == anyone {
		*l = originList{anyone}
		return nil
	}
	urls, err := parseURLs(strings.Split(s, ","))
	if err != nil {
		return err
	}
	*l = urls.strings()
	return nil
}

// oneOf is a flag value that accepts only some words.
type oneOf struct {
	dst   *string
	words []string
}

// String implements flag.Value.
func (o oneOf) String() string {
	if o.dst == nil {
		return ""
	}
	return *o.dst
}

// Set implements flag.Value.
func (o oneOf) Set(s string) error {
	if !slices.Contains(o.words, s) {
		return errors.New("invalid value")
	}
	*o.dst = s
	return nil
}

// someOf is a flag value: comma-separated words of which each must be known. It
// adds to what was set before, as in etcd.
type someOf struct{ got, words []string }

// String implements flag.Value.
func (o *someOf) String() string { return strings.Join(o.got, ",") }

// Set implements flag.Value.
func (o *someOf) Set(s string) error {
	for _, w := range strings.Split(s, ",") {
		if !slices.Contains(o.words, w) {
			return fmt.Errorf("invalid value %q", w)
		}
		o.got = append(o.got, w)
	}
	slices.Sort(o.got)
	return nil
}

// boolValue is a bool as a flag value.
type boolValue bool

// String implements flag.Value.
func (v *boolValue) String() string { return strconv.FormatBool(bool(*v)) }

// Set implements flag.Value.
func (v *boolValue) Set(s string) error {
	b, err := strconv.ParseBool(s)
	*v = boolValue(b)
	return err
}

// uint32Value is a flag value that package flag lacks.
type uint32Value struct{ dst *uint32 }

// String implements flag.Value.
func (v uint32Value) String() string {
	if v.dst == nil {
		return "0"
	}
	return strconv.FormatUint(uint64(*v.dst), 10)
}

// Set implements flag.Value.
func (v uint32Value) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return err
	}
	*v.dst = uint32(n)
	return nil
}

// ignoredFlag accepts a flag of etcd's past, with or without a value.
type ignoredFlag struct{}

// String implements flag.Value.
func (ignoredFlag) String() string { return "" }

// Set implements flag.Value.
func (ignoredFlag) Set(string) error { return nil }

// IsBoolFlag lets package flag accept the flag without a value.
func (ignoredFlag) IsBoolFlag() bool { return true }
