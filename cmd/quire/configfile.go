package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// fileSections are the nested parts of the file: their keys, each with the flag
// that it stands for.
var fileSections = map[string]map[string]string{
	"client-transport-security": securityKeys("", "client-"),
	"peer-transport-security":   securityKeys("peer-", "peer-"),
	"socket-options":            {"reuse-port": "socket-reuse-port", "reuse-address": "socket-reuse-address"},
	"discovery-config":          {"token": "discovery-token"},
	"discovery-config.client": {
		"endpoints": "discovery-endpoints", "dial-timeout": "discovery-dial-timeout", "request-timeout": "discovery-request-timeout",
		"keepalive-time": "discovery-keepalive-time", "keepalive-timeout": "discovery-keepalive-timeout",
	},
	"discovery-config.client.secure": {
		"cert": "discovery-cert", "key": "discovery-key", "cacert": "discovery-cacert",
		"insecure-transport": "discovery-insecure-transport", "insecure-skip-tls-verify": "discovery-insecure-skip-tls-verify",
	},
	"discovery-config.client.auth": {"username": "discovery-user", "password": "discovery-password"},
}

// securityKeys are the keys of both security sections. etcd has no revocation
// list in its file; here it is crl-file.
func securityKeys(prefix, whose string) map[string]string {
	keys := map[string]string{
		"crl-file": whose + "crl-file", "allowed-cn": whose + "cert-allowed-cn", "allowed-hostname": whose + "cert-allowed-hostname",
		"skip-client-san-verification": whose + "skip-client-san-verification",
	}
	for _, k := range []string{"cert-file", "key-file", "client-cert-file", "client-key-file", "client-cert-auth", "trusted-ca-file", "auto-tls"} {
		keys[k] = prefix + k
	}
	return keys
}

// notOnTop are flags that have no key on the top level of the file, because they
// belong into a section or because etcd's file does not know them. It ignores
// such keys, as every key that it does not know.
var notOnTop = func() map[string]bool {
	flags := map[string]bool{
		"config-file": true, "version": true, "discovery-fallback": true, "v2-deprecation": true,
		"raft-read-timeout": true, "raft-write-timeout": true, "peer-crl-file": true, "client-crl-file": true,
	}
	for _, section := range fileSections {
		for _, name := range section {
			flags[name] = true
		}
	}
	return flags
}()

// fileBytes bounds a configuration file.
const fileBytes = 1 << 20

// parseFile sets the flags that the YAML file names.
func (f *flagSet) parseFile(path string) (faults []error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return []error{fmt.Errorf("--config-file: %w", err)}
	}
	if len(raw) > fileBytes {
		return []error{fmt.Errorf("--config-file %s: more than %d bytes", path, fileBytes)}
	}
	if faults = f.parseYAML(raw); len(faults) > 0 {
		for i := range faults {
			faults[i] = fmt.Errorf("--config-file %s: %w", path, faults[i])
		}
	}
	return faults
}

// parseYAML sets the flags that a file names. A null leaves the default, an
// unknown key (a setting of etcd's past) is ignored.
func (f *flagSet) parseYAML(raw []byte) (faults []error) {
	var file map[string]any
	if err := yaml.Unmarshal(raw, &file, useNumber); err != nil {
		return []error{err}
	}
	for _, key := range slices.Sorted(maps.Keys(file)) {
		name := strings.ToLower(key) // as Go's JSON decoder, etcd takes any case
		if section := fileSections[name]; section != nil {
			faults = append(faults, f.setSection(name, section, file[key])...)
		} else if !notOnTop[name] {
			faults = append(faults, f.setFromFile(name, key, file[key])...)
		}
	}
	return faults
}

// setSection sets the flags of a nested part.
func (f *flagSet) setSection(path string, keys map[string]string, value any) (faults []error) {
	section, ok := value.(map[string]any)
	if !ok {
		if value == nil {
			return nil
		}
		return []error{fmt.Errorf("invalid %s", path)}
	}
	for _, key := range slices.Sorted(maps.Keys(section)) {
		name := strings.ToLower(key)
		if inner := fileSections[path+"."+name]; inner != nil {
			faults = append(faults, f.setSection(path+"."+name, inner, section[key])...)
		} else if flagName, known := keys[name]; known {
			faults = append(faults, f.setFromFile(flagName, path+"."+key, section[key])...)
		}
	}
	return faults
}

// useNumber keeps integers exact.
func useNumber(d *json.Decoder) *json.Decoder {
	d.UseNumber()
	return d
}

// setting returns what a name sets: a flag or what only a file has.
func (f *flagSet) setting(name string) flag.Value {
	if fl := f.Lookup(name); fl != nil {
		return fl.Value
	}
	return f.fileOnly[name]
}

// setFromFile sets one flag; key is what the file calls it.
func (f *flagSet) setFromFile(name, key string, value any) []error {
	to := f.setting(name)
	if to == nil || value == nil {
		return nil
	}
	if _, past := to.(ignoredFlag); past {
		return nil
	}
	_, isDuration := valueOf(to).(time.Duration)
	text, err := fileValue(value, isDuration)
	if err == nil {
		// An empty text means "not set" for anything but a string flag.
		if _, isString := valueOf(to).(string); text == "" && !isString {
			return nil
		}
		err = to.Set(text)
	}
	if err != nil {
		if slices.Contains(secretFlags, name) {
			value = masked
		}
		return []error{fmt.Errorf("invalid value %v for %s: %w", value, key, err)}
	}
	f.cfg.set[name] = true
	return nil
}

// valueOf returns a flag's current value if its kind tells it, else nil.
func valueOf(v any) any {
	if g, ok := v.(interface{ Get() any }); ok {
		return g.Get()
	}
	return nil
}

// fileValue turns a YAML value into the text that the flag would be given. A
// number for a duration counts nanoseconds, as in etcd's files.
func fileValue(value any, isDuration bool) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool:
		return fmt.Sprint(v), nil
	case json.Number:
		if isDuration {
			return v.String() + "ns", nil
		}
		return v.String(), nil
	case []any:
		words := make([]string, len(v))
		for i, w := range v {
			s, err := fileValue(w, false)
			if err != nil {
				return "", err
			}
			words[i] = s
		}
		return strings.Join(words, ","), nil
	}
	return "", fmt.Errorf("cannot be a %T", value)
}
