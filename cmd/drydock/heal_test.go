package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rot is what happens to a repository in a folder: bits flip in its largest pack, in the
// file of its oldest or newest backup and in an index file, and another pack is gone.
func rot(t *testing.T, folder string, oldest bool) {
	t.Helper()
	list := func(pattern ...string) []string {
		all, err := filepath.Glob(filepath.Join(append([]string{folder}, pattern...)...))
		must(t, err)
		if len(all) == 0 {
			t.Fatalf("nothing in %s", filepath.Join(pattern...))
		}
		return all
	}
	stat := func(path string) os.FileInfo {
		info, err := os.Stat(path)
		must(t, err)
		return info
	}
	size := func(path string) int64 { return stat(path).Size() }
	backups := list("snapshots", "*")
	slices.SortFunc(backups, func(a, b string) int { return stat(a).ModTime().Compare(stat(b).ModTime()) })
	if !oldest {
		slices.Reverse(backups)
	}
	largest, smallest := "", ""
	for _, path := range list("data", "*", "*") {
		if largest == "" || size(path) > size(largest) {
			largest = path
		}
		if smallest == "" || size(path) < size(smallest) {
			smallest = path
		}
	}
	must(t, os.Remove(smallest))
	for _, path := range []string{largest, backups[0], list("index", "*")[0]} {
		data, err := os.ReadFile(path)
		must(t, err)
		data[len(data)/3] ^= 0x10
		must(t, os.Chmod(path, 0o600))
		must(t, os.WriteFile(path, data, 0o600))
	}
}

// TestRotAtEitherPlace: what rots at a copy on a server comes back in the next round, and
// what rots in the repository comes back from there when that is asked for. The real
// restic finds both whole afterwards, and can prune them.
func TestRotAtEitherPlace(t *testing.T) {
	t.Parallel() // most of it is waiting
	for kind, p := range places(t, retainHost(t)) {
		t.Run(kind, func(t *testing.T) {
			h := retainHost(t)
			key := h.path("key")
			config := fmt.Sprintf(pruneConfig, h.dir, "path: "+h.path("repository"), key) +
				fmt.Sprintf("copies: [{%s, name: far, password_file: %s, verify: {mode: full, every: 1h}}]\n", p.settings, key)
			must(t, os.WriteFile(h.config, []byte(config), 0o600))
			for n := range 3 {
				h.night(n, 0)
			}
			here := place{folder: h.path("repository")}
			whole := func(nights ...int) {
				t.Helper()
				h.whole(p, key, nights...)
				if out, err := h.resticIn(here.folder, key, "check", "--read-data"); err != nil {
					t.Errorf("restic check of the repository: %v\n%s", err, out)
				}
			}
			whole(2, 1)
			rot(t, p.folder, kind == "S3") // the oldest is not wanted there by the next round
			report := h.night(3, 3)
			c := report.Copies[0]
			// That a pack is gone is seen only if the index file that named it can be read; if
			// not, what was in it is copied as if it were new.
			if c.Error != "" || c.Verify == nil || c.Verify.DamageTotal > 0 || !strings.Contains(c.Mended, "index files could not be read") {
				t.Errorf("the copy: %+v; %q, %+v", c, c.Mended, *c.Verify)
			}
			if report = h.night(4, 0); report.Copies[0].Verify == nil || len(report.Problems()) > 0 {
				t.Errorf("a night later: %+v", report.Copies[0])
			}
			whole(4, 3)
			rot(t, here.folder, false)
			h.run(1, "verify", "--mode", "full")
			if r := h.run(0, "verify", "--repair"); !strings.Contains(r.stdout, "replaced: pack ") || !strings.Contains(r.stdout, "made again: index file") || !strings.Contains(r.stdout, "brought back: backup ") {
				t.Errorf("the repair: %s", r.stdout)
			}
			whole(4, 3)
			for _, folder := range []string{p.folder, here.folder} {
				if out, err := h.resticIn(folder, key, "prune"); err != nil {
					t.Errorf("restic prune: %v\n%s", err, out)
				}
			}
			again := h.night(5, 0)
			if again.Copies[0].Copied != 1 {
				t.Errorf("the night after: %+v", again.Copies[0])
			}
			whole(5, 4)
		})
	}
}
