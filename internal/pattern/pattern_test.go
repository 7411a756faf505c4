package pattern_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/pattern"
)

// paths are matched against all patterns; a slash at the end is a folder.
var paths = []string{
	"a", "b", "ab", "abc", "a/", "cache/", "cache", "cache/x", "var/cache/", "var/cache/x", "var/cache/x/y/",
	"var/lib/cache/", "foo/bar", "foo/x/bar", "foo/x/y/bar", "x/foo/bar", "a.o", "src/a.o", "src/.o", ".o", "#x", "!x",
	"sp ", "a*b", "a?b", "a[b", "a]b", "a-b", "a\\b", "\xff\xfe", "\xffx", "dir/\xff", "Z", "5", "_", "a\nb", "foo/", "foo/bar/",
	"deep/1/2/3/4/5/6/7", "aXbXcXd", "x-1", "x^1", "x!1", "[:alpha:]",
}

var patterns = []string{
	"a", "/a", "a/", "/a/", "cache", "cache/", "/cache", "/var/cache", "var/cache", "/var/cache/*", "var/cache/**",
	"**/cache", "**/cache/", "foo/**/bar", "foo/*/bar", "**/foo/bar", "/**", "**", "*", "/*", "/*/", "*.o", "?.o", "*o", `\#x`, `\!x`,
	"a[*]b", `a\*b`, `a\?b`, `a\[b`, "a[]]b", "a[]-]b", "a[!]]b", "a[^x]b", `a\\b`, `a[\\]b`, "\xff*", "[\xf0-\xff]*", "[[:alpha:]]",
	"[[:digit:][:upper:]]", "[![:alnum:]]", "[a-cX-Z]", "a*X*d", "a*b*c*d", "/deep/**/7", "/deep/**/**/7", "deep/**/5/**", "foo/**",
	"foo/***/bar", "x[^-]1", "x[!^]1", "x[-^]1", "dir/?", "*/*", "*/*/*", "[[:punct:]]x", "[[:cntrl:]a]*", "***", "a**c",
}

// git is the judge of every pattern on every path.
func TestAgainstGit(t *testing.T) {
	dir := repositories(t)
	for _, p := range patterns {
		checkList(t, dir, []string{p})
	}
	for _, list := range [][]string{
		{"*", "!a", "!var/"}, {"!a", "a"}, {"cache/*", "!x"}, {"a*", "!ab", "abc"}, {"!*"}, {"*.o", "!/src/*.o"},
	} {
		checkList(t, dir, list)
	}
}

func TestRandomAgainstGit(t *testing.T) {
	dir := repositories(t)
	rng := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "b", "*", "**", "?", "/", "/", "[ab]", "[!a]", "foo", "bar", "x"}
	tried := 0
	for range 200 {
		var list []string
		for range 1 + rng.IntN(3) {
			s := ""
			if rng.IntN(4) == 0 {
				s = "!"
			}
			for range 1 + rng.IntN(6) {
				s += parts[rng.IntN(len(parts))]
			}
			if _, err := pattern.Compile([]string{s}); err == nil && !loose(s) {
				list = append(list, s)
			}
		}
		if len(list) > 0 {
			tried++
			checkList(t, dir, list)
		}
	}
	if tried < 80 {
		t.Errorf("only %d lists were tried", tried)
	}
}

// loose reports whether s has stars of which gitignore(5) says that they are like
// one, and of which git's own matcher thinks otherwise by chance.
func loose(s string) bool {
	for part := range strings.SplitSeq(strings.TrimPrefix(s, "!"), "/") {
		if strings.Contains(part, "**") && strings.Trim(part, "*") != "" {
			return true
		}
	}
	return false
}

// repositories makes two, as git asks the file system what is a folder: in
// "files" there is nothing, in "folders" are the paths that are folders.
func repositories(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"files", "folders"} {
		git(t, dir, nil, "init", "-q", d)
	}
	for _, p := range paths {
		if !strings.HasSuffix(p, "/") {
			continue
		}
		if err := os.MkdirAll(filepath.Join(dir, "folders", p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func git(t *testing.T, dir string, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) { // 1: nothing matched
		t.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// checkList compares what we and git make of all paths.
func checkList(t *testing.T, dir string, list []string) {
	t.Helper()
	l, err := pattern.Compile(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"files", "folders"} {
		var of []string
		for _, p := range paths {
			if strings.HasSuffix(p, "/") == (kind == "folders") {
				of = append(of, strings.TrimSuffix(p, "/"))
			}
		}
		checkPaths(t, l, filepath.Join(dir, kind), of, kind == "folders")
	}
}

func checkPaths(t *testing.T, l *pattern.List, dir string, paths []string, folders bool) {
	t.Helper()
	exclude := strings.Join(l.Strings(), "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, ".git/info/exclude"), []byte(exclude), 0o600); err != nil {
		t.Fatal(err)
	}
	out := git(t, dir, []byte(strings.Join(paths, "\x00")+"\x00"), "check-ignore", "--no-index", "-v", "-n", "-z", "--stdin")
	fields := bytes.Split(bytes.TrimSuffix(out, []byte{0}), []byte{0}) // source, line, pattern, path
	if len(fields) != 4*len(paths) {
		t.Fatalf("git printed %d fields for %d paths", len(fields), len(paths))
	}
	for i, p := range paths {
		matched := string(fields[4*i+2])
		want := matched != "" && !strings.HasPrefix(matched, "!")
		if by, _ := l.Find([]byte(p), folders); by != matched && !leftOut(l, filepath.Dir(p), true) {
			t.Errorf("%q on %q, folder %v: %q decides, and git says %q", l.Strings(), p, folders, by, matched)
		}
		if got := leftOut(l, p, folders); got != want {
			t.Errorf("%q on %q, folder %v: %v, and git says %v (%q)", l.Strings(), p, folders, got, want, matched)
		}
	}
}

// leftOut looks at parents too, as git does: a path is left out if one above is.
func leftOut(l *pattern.List, path string, folder bool) bool {
	for i := range len(path) {
		if path[i] == '/' && l.Match([]byte(path[:i]), true) == pattern.Match {
			return true
		}
	}
	return l.Match([]byte(path), folder) == pattern.Match
}

// Whatever a list matches lies in folders of which MayMatchBelow says so.
func TestMayMatchBelow(t *testing.T) {
	for _, p := range patterns {
		l, err := pattern.Compile([]string{p})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			clean := strings.TrimSuffix(path, "/")
			if l.Match([]byte(clean), clean != path) != pattern.Match {
				continue
			}
			for i := range len(clean) {
				if clean[i] == '/' && !l.MayMatchBelow([]byte(clean[:i])) {
					t.Errorf("%q matches %q, and MayMatchBelow(%q) denies it", p, clean, clean[:i])
				}
			}
		}
	}
	l, err := pattern.Compile([]string{"/srv/data/*.db", "!/home/**"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"": true, "srv": true, "srv/data": true, "srv/data/x": false, "home": false, "srv/other": false} {
		if got := l.MayMatchBelow([]byte(path)); got != want {
			t.Errorf("MayMatchBelow(%q) is %v", path, got)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		pattern string
		offset  int
	}{
		{"", 0}, {"/", 1}, {"!", 1}, {"#x", 0}, {"a//b", 2}, {"a/../b", 2}, {"./a", 0}, {"a[b", 1}, {"x/a[b", 3}, {"a[b/c]", 1},
		{"a[z-a]", 2}, {`a\`, 1}, {"[[:nope:]]", 1}, {"a\x00b", 1}, {strings.Repeat("a", 4097), 4096}, {`[\`, 0}, {`[a-\`, 0},
		{"!/x/[", 4},
	} {
		_, err := pattern.Compile([]string{"good", test.pattern})
		var e *pattern.Error
		if !errors.As(err, &e) || e.Pattern != test.pattern || e.Offset != test.offset {
			t.Errorf("%.20q: %v", test.pattern, err)
		}
	}
}

// Patterns that make a backtracking matcher run for ever.
func TestWorkIsBounded(t *testing.T) {
	l, err := pattern.Compile([]string{
		strings.Repeat("a*", 1000) + "b",
		"/" + strings.Repeat("**/a/", 500) + "b",
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.Match(bytes.Repeat([]byte("a"), 255), false) != pattern.NoMatch ||
		l.Match(bytes.Repeat([]byte("a/"), 2000)[:3999], false) != pattern.NoMatch {
		t.Error("matched what does not match")
	}
}

func FuzzMatch(f *testing.F) {
	for _, p := range patterns {
		f.Add(p, "var/cache/x")
	}
	f.Fuzz(func(t *testing.T, p, path string) {
		l, err := pattern.Compile([]string{p})
		if err != nil {
			return
		}
		asDir, asFile := l.Match([]byte(path), true), l.Match([]byte(path), false)
		if asFile != pattern.NoMatch && asDir != asFile {
			t.Errorf("%q matches the file %q and not the folder", p, path)
		}
	})
}
