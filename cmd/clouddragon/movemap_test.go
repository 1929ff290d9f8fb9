package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestShardMapIsChangedInOneLine changes the map of the documents.
func TestShardMapIsChangedInOneLine(t *testing.T) {
	example, err := os.ReadFile("../../docs/shards.map")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, link := filepath.Join(dir, "shards.map"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, example, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("shards.map", link); err != nil {
		t.Fatal(err)
	}
	put := func(acc, address, want string) {
		t.Helper()
		m, err := readShardMap(link)
		if err != nil {
			t.Fatal(err)
		}
		backend, err := m.backend(address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.put(acc, backend); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != want {
			t.Errorf("%s on %s: %v, the map is\n%s", acc, address, err, got)
		}
	}
	want := strings.Replace(string(example), "shop shard0\n", "shop shard1\n", 1)
	put("shop", "http://10.0.0.4:8081", want)
	put("shop", "http://10.0.0.3:8081/", want)
	want += "a%2Fb%20%23 shard0\n"
	put("a/b #", "http://10.0.0.1:8081", want)
	put("a/b #", "http://10.0.0.2:8081", want)
	if names, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(names) != 0 {
		t.Errorf("left behind: %q, %v", names, err)
	}
	if _, err := (&shardMap{file: file}).backend("http://10.0.0.5:8081"); err == nil {
		t.Error("a server that is not in the map has a backend")
	}
	for text, part := range map[string]string{
		"shop one\nshop two\n":   ":2: the account shop is listed twice, first on line 1",
		"sho%70 one\nshop two\n": "is listed twice",
		"shop\n":                 ":1: want an account and its backend",
		"# backend one http://a\n# backend two http://a/\n": ":2: http://a already belongs to backend one",
		"\n%zz one\n": ":2: the account %zz has a bad percent escape",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readShardMap(file); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v, want %q", text, err, part)
		}
	}
}
