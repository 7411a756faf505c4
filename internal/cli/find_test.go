package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	w := newWorld(t)
	dir := w.twoTrees()
	write(t, dir+"/etc/grown", "a third time, and more of it")
	w.backup("web", dir, "2026-11-03 03:00:00")
	w.backup("db", dir, "2026-11-03 03:00:00")

	var found []foundFile
	findJSON := func(args ...string) []foundFile {
		t.Helper()
		found = nil
		out, _ := w.run(0, append([]string{"find", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		return found
	}
	days := []string{w.snapshot("2026-11-01"), w.snapshot("2026-11-02"), ""}

	// Three versions of one file, one of another, none of what is not there.
	f := findJSON("grown", "web")
	if len(f) != 1 || f[0].VM != "web" || f[0].Path != "/etc/grown" || len(f[0].Versions) != 3 || f[0].Versions[0].Backups[0] != days[0] ||
		f[0].Versions[0].Size != 20 || f[0].Versions[2].Size != 28 {
		t.Errorf("%+v", f)
	}
	if f = findJSON("/etc/sam*", "web"); len(f) != 1 || len(f[0].Versions) != 1 || len(f[0].Versions[0].Backups) != 3 {
		t.Errorf("%+v", f)
	}
	if f = findJSON("nothing"); len(f) != 0 {
		t.Errorf("%+v", f)
	}
	// A folder that changed into a file is two versions; all machines are searched.
	if f = findJSON("/etc/kind"); len(f) != 2 || f[0].VM != "db" || len(f[1].Versions) != 2 || f[1].Versions[0].Type != "file" || f[1].Versions[1].Type != "dir" {
		t.Errorf("%+v", f)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"/etc/grown", []string{"--size", "+28", "--type", "file", "*", "web@latest"}},
		{"/added/a/b", []string{"--size", "-7", "--size", "+5", "*", "web@latest"}},
		{"/etc /gone /quiet /var", []string{"--type", "dir", "/*", "web@2026-11-01", "--newer", "2020-01-01"}},
		{"", []string{"*", "web", "--older", "2020-01-01"}},
		{"/gone/a/b /quiet/x/y", []string{"--type", "file", "?", "web@2026-11-01", "--newer", "1h"}},
		{"/var/lib/db", []string{"db", "web@2026-11-01", "web@2026-11-01"}},
	} {
		var paths []string
		for _, f := range findJSON(c.args...) {
			paths = append(paths, f.Path)
		}
		if got := strings.Join(paths, " "); got != c.want {
			t.Errorf("find %q: %q, want %q", c.args, got, c.want)
		}
	}
	out, _ := w.run(0, "find", "*new*", "web")
	if !strings.Contains(out, `web:/etc/new\u{1b}[31m  in 2, `+days[1][:8]) || strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
	for code, args := range map[int][][]string{
		1: {{"a", "mail"}, {"a", "web@2020-01-01"}},
		2: {{}, {"["}, {"a", "web/data"}, {"a", "--type", "folder"}, {"a", "--size", "big"}, {"a", "--newer", "soon"}, {"a", "disk.raw"}},
	} {
		for _, a := range args {
			w.run(code, append([]string{"find"}, a...)...)
		}
	}
}
