package quire_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is the table of rooms: who may import whom of ours. A new arrow is
// a decision; it is made here and in ARCHITECTURE.md.
var mayImport = map[string][]string{
	"cmd/quire":   {"*"},
	"rpc":         {"engine", "engine/auth", "raft", "watchfanout", "api", "rpc/token"},
	"rpc/token":   {"engine/auth"},
	"watchfanout": {"api"},
	"raft":        {"wal", "api", "socket"},                             // of socket only raft/peer
	"engine":      {"engine/auth", "index", "pagestore", "api", "disk"}, // of disk only the FS that it hands to pagestore
	"engine/auth": {"api"},
	"index":       {},
	"pagestore":   {"disk"},
	"wal":         {"disk"},
	"disk":        {},
	"socket":      {},
	"api":         {"api"},
}

// testsMayImport are what tests need beyond that: the crashable disk, real
// parts instead of fakes.
var testsMayImport = map[string][]string{
	"engine": {"disk"},
	"raft":   {"disk"},
	"rpc":    {"disk", "wal"},
}

const (
	maxFileLines     = 800
	maxFunctionLines = 100
)

var bannedPackages = []string{"util", "utils", "common", "types", "helpers", "helper", "base", "misc"}

// source is one parsed file of ours; generated code is left out.
type source struct {
	name string // relative, with slashes
	dir  string
	file *ast.File
	set  *token.FileSet
}

func (s source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

// room returns the entry of mayImport that a folder belongs to.
func room(dir string) string {
	for {
		if _, ok := mayImport[dir]; ok || dir == "." || dir == "" {
			return dir
		}
		dir = path.Dir(dir)
	}
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			_, nested := os.Stat(filepath.Join(name, "go.mod"))
			skip := strings.HasPrefix(d.Name(), ".") && name != "." || d.Name() == "testdata" || name != "." && nested == nil
			if skip {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, ".pb.go") {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{name, path.Dir(name), f, set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImportDirections(t *testing.T) {
	for _, s := range sources(t) {
		from := room(s.dir)
		allowed, known := mayImport[from]
		if !known {
			if s.dir != "." {
				t.Errorf("%s: folder is not a room of the table", s.name)
			}
			continue
		}
		for _, imp := range s.file.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			p, ours := strings.CutPrefix(p, "quire/")
			to := room(p)
			if !ours || to == from || slices.Contains(allowed, "*") || slices.Contains(allowed, to) {
				continue
			}
			if s.isTest() && slices.Contains(testsMayImport[from], to) {
				continue
			}
			t.Errorf("%s: %s must not import %s", s.set.Position(imp.Pos()), from, to)
		}
	}
}

func TestLengths(t *testing.T) {
	for _, s := range sources(t) {
		if n := s.set.Position(s.file.End()).Line; n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", s.name, n, maxFileLines)
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := s.set.Position(fn.End()).Line - s.set.Position(fn.Pos()).Line + 1
			if n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, more than %d", s.set.Position(fn.Pos()), fn.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

func TestPackages(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.isTest() || s.dir == "." {
			continue
		}
		if slices.Contains(bannedPackages, path.Base(s.dir)) || slices.Contains(bannedPackages, s.file.Name.Name) {
			t.Errorf("%s: a package is a noun of the field, not %q", s.name, s.file.Name.Name)
		}
		documented[s.dir] = documented[s.dir] || s.file.Doc != nil && path.Base(s.name) == "doc.go"
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment in doc.go", dir)
		}
	}
}
