// Package house checks how the repository is built: which package imports which,
// how long files are, that exported names have doc comments, and that the links and
// version numbers in the documents are right.
package house

// imports says which packages of this module each package may import. Imports run
// downwards: a package stands below every package that it imports. A new package
// needs a line here and one in docs/architecture.md.
var imports = []struct {
	pkg string
	may []string
}{
	{"internal/disk", nil},
	{"internal/format", nil},
	{"internal/hashindex", nil},
	{"internal/list", nil},
	{"internal/lease", []string{"internal/list"}},
	{"internal/logqueue", nil},
	{"internal/systemd", nil},
	{"internal/units", nil},
	{"internal/front", nil},
	{"metrics", nil},
	{"internal/names", []string{"internal/disk", "internal/format"}},
	{"internal/boottime", nil},
	{"internal/client", []string{"internal/boottime", "internal/units"}},
	{"internal/job", []string{"internal/boottime"}},
	{"internal/job/early", []string{"internal/job", "internal/logqueue"}},
	{"internal/archive", []string{"internal/disk", "internal/format"}},
	{"kvlog/wal", []string{"internal/disk", "internal/format"}},
	{"slots", []string{"internal/disk", "internal/format", "internal/hashindex"}},
	{"kvlog", []string{"internal/disk", "internal/format", "internal/hashindex", "kvlog/wal"}},
	{"db/commit", []string{"internal/format", "internal/names", "kvlog", "kvlog/wal", "slots"}},
	{"db/store", []string{"internal/archive", "internal/disk", "internal/format", "internal/names", "kvlog", "kvlog/wal", "slots", "db/commit"}},
	{"db", []string{"internal/archive", "internal/disk", "internal/format", "internal/lease", "internal/list", "internal/names", "kvlog", "kvlog/wal", "slots", "db/commit", "db/store"}},
	{"internal/replica", []string{"internal/boottime", "internal/disk", "internal/format", "kvlog/wal", "db/commit", "db/store", "db"}},
	{"handlers", []string{"internal/front", "internal/units", "db", "internal/replica"}},
	{"cmd/clouddragon", []string{
		"internal/archive", "internal/boottime", "internal/client", "internal/disk", "internal/front", "internal/job", "internal/job/early", "internal/logqueue", "internal/systemd", "internal/units", "metrics", "slots", "db/commit", "db/store", "db", "internal/replica", "handlers",
	}},
	{"bench", nil},
	{"internal/packaging/man", nil},
	{"internal/test/browser", nil},
	{"internal/test/memdisk", []string{"internal/disk"}},
	{"internal/test/crashtest", nil},
	{"internal/test/golden", nil},
	{"internal/test/loopback", nil},
	{"internal/test/planted", nil},
	{"internal/test/house", nil},
}

// onlyIn says which packages may import a package from elsewhere; a name that ends
// in a slash stands for all packages below it.
var onlyIn = map[string][]string{
	"net/http":              {"handlers", "internal/client", "internal/front", "internal/replica", "metrics", "cmd/clouddragon", "bench", "internal/test/"},
	"golang.org/x/sys/":     {"internal/boottime", "internal/disk", "internal/front", "internal/job", "internal/systemd", "cmd/clouddragon", "db/commit", "bench", "internal/test/"},
	"github.com/edsrzf/":    {"internal/disk"},
	"github.com/goccy/":     {"cmd/clouddragon"},
	"github.com/prometheus": {"metrics"},
}
