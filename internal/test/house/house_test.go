package house

import (
	"bytes"
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

const (
	root   = "../../.."
	module = "clouddragon/"
	// maxLines is the most lines that a file may have, and maxTestLines those of a test file.
	maxLines     = 400
	maxTestLines = 500
)

// files calls visit for each file of the repository with that suffix.
func files(t *testing.T, suffix string, visit func(name string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && name != root || d.Name() == "testdata" || d.Name() == "bin"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, suffix):
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(rel), text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources calls visit for each Go file that is not a test.
func sources(t *testing.T, visit func(name string, f *ast.File)) {
	t.Helper()
	files(t, ".go", func(name string, text []byte) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		visit(name, f)
	})
}

func TestImportsRunDownwards(t *testing.T) {
	may := map[string][]string{}
	for _, line := range imports {
		for _, below := range line.may {
			if _, ok := may[below]; !ok {
				t.Errorf("the table has %s above %s, which it imports", line.pkg, below)
			}
		}
		may[line.pkg] = line.may
	}
	sources(t, func(name string, f *ast.File) {
		pkg := path.Dir(name)
		allowed, ok := may[pkg]
		if !ok {
			t.Errorf("%s: package %s is not in the table of imports", name, pkg)
		}
		for _, spec := range f.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if own, ok := strings.CutPrefix(to, module); ok {
				if !slices.Contains(allowed, own) {
					t.Errorf("%s: package %s may not import %s", name, pkg, own)
				}
				continue
			}
			for outside, in := range onlyIn {
				if matches(to, outside) && !slices.ContainsFunc(in, func(p string) bool { return matches(pkg, p) }) {
					t.Errorf("%s: package %s may not import %s", name, pkg, to)
				}
			}
		}
	})
}

// matches reports whether a package is the one of a pattern, or is below a pattern that ends
// in a slash.
func matches(pkg, pattern string) bool {
	return pkg == pattern || strings.HasSuffix(pattern, "/") && strings.HasPrefix(pkg, pattern)
}

func TestFilesAreShort(t *testing.T) {
	files(t, ".go", func(name string, text []byte) {
		if n := bytes.Count(text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, and %d are allowed: it is usually about two things", name, n, maxLines)
		}
	})
}

func TestExportedNamesHaveDocComments(t *testing.T) {
	documented := map[string]bool{} // packages with a package comment
	sources(t, func(name string, f *ast.File) {
		pkg := path.Dir(name)
		documented[pkg] = documented[pkg] || f.Doc != nil
		if f.Name.Name == "main" {
			return // nobody imports it
		}
		for _, decl := range f.Decls {
			for _, missing := range undocumented(decl) {
				t.Errorf("%s: %s has no doc comment", name, missing)
			}
		}
	})
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

// undocumented returns the exported names of a declaration that have no comment, neither their
// own nor that of their line or group.
func undocumented(decl ast.Decl) (names []string) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && !slices.Contains(obvious, d.Name.Name) && (d.Recv == nil || exportedReceiver(d.Recv)) {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc == nil && d.Doc == nil {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

// obvious are methods whose names say everything.
var obvious = []string{"Error", "Unwrap", "String"}

func exportedReceiver(recv *ast.FieldList) bool {
	t := recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	if g, ok := t.(*ast.IndexExpr); ok {
		t = g.X
	}
	id, ok := t.(*ast.Ident)
	return ok && id.IsExported()
}
