package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// fileSections are the nested parts of the file and the prefix that turns
// their keys into flag names.
var fileSections = map[string]string{
	"client-transport-security": "",
	"peer-transport-security":   "peer-",
}

// sectionKeys are keys whose flag is not simply prefix + key.
var sectionKeys = map[string]string{
	"allowed-hostname":                  "client-cert-allowed-hostname",
	"peer-allowed-hostname":             "peer-cert-allowed-hostname",
	"peer-allowed-cn":                   "peer-cert-allowed-cn",
	"peer-skip-client-san-verification": "peer-skip-client-san-verification",
}

// notInFile are flags that a file cannot set; etcd ignores such keys too.
var notInFile = []string{"config-file", "version", "discovery-fallback", "v2-deprecation"}

// parseFile sets the flags that the YAML file names. A null leaves the
// default, an unknown key (a setting of etcd's past) is ignored.
func (f *flagSet) parseFile(path string) (faults []error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return []error{fmt.Errorf("--config-file: %w", err)}
	}
	var file map[string]any
	if err := yaml.Unmarshal(raw, &file, useNumber); err != nil {
		return []error{fmt.Errorf("--config-file %s: %w", path, err)}
	}
	for _, key := range slices.Sorted(maps.Keys(file)) {
		prefix, nested := fileSections[key]
		if !nested {
			faults = append(faults, f.setFromFile(key, key, file[key])...)
			continue
		}
		section, ok := file[key].(map[string]any)
		if !ok {
			if file[key] != nil {
				faults = append(faults, fmt.Errorf("--config-file: invalid %s", key))
			}
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(section)) {
			name := prefix + k
			if other, ok := sectionKeys[name]; ok {
				name = other
			}
			faults = append(faults, f.setFromFile(name, key+"."+k, section[k])...)
		}
	}
	return faults
}

// useNumber keeps integers exact.
func useNumber(d *json.Decoder) *json.Decoder {
	d.UseNumber()
	return d
}

// setFromFile sets one flag; key is what the file calls it.
func (f *flagSet) setFromFile(name, key string, value any) []error {
	fl := f.Lookup(name)
	if fl == nil || value == nil || slices.Contains(notInFile, name) {
		return nil
	}
	_, isDuration := valueOf(fl.Value).(time.Duration)
	text, err := fileValue(value, isDuration)
	if err == nil {
		// An empty text means "not set" for anything but a string flag.
		if _, isString := valueOf(fl.Value).(string); text == "" && !isString {
			return nil
		}
		err = f.Set(name, text)
	}
	if err != nil {
		return []error{fmt.Errorf("--config-file: invalid value %v for %s: %w", value, key, err)}
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
