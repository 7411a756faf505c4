package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// writeConfig writes a small configuration and returns its path.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drydock.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const small = `state: state
runtime: run
repository: {path: repo}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      data: {path: data.qcow2, format: qcow2, mount: /var}
`

func TestExitCodesAndOneLineErrors(t *testing.T) {
	good := writeConfig(t, small)
	bad := writeConfig(t, strings.Replace(small, "driver:", "drvier:", 1))
	for name, c := range map[string]struct {
		args []string
		code int
		want string // in stderr
	}{
		"no verb":           {nil, 0, ""},
		"unknown verb":      {[]string{"dock"}, 2, `there is no "drydock dock" (drydock --help lists what it knows)`},
		"nearly a verb":     {[]string{"rnu"}, 2, `there is no "drydock rnu" (is it run? drydock`},
		"a flag of a group": {[]string{"backups", "list", "--now"}, 2, "drydock backups list --help"},
		"help":              {[]string{"help", "run"}, 0, ""},
		"completion":        {[]string{"completion", "bash"}, 0, ""},
		"unknown flag":      {[]string{"run", "--now"}, 2, "--now"},
		"too many words":    {[]string{"due", "a", "b"}, 2, "usage: drydock due VM"},
		"no configuration":  {[]string{"-c", "/no/such.yaml", "plan"}, 2, "drydock config init"},
		"a wrong key":       {[]string{"-c", bad, "plan"}, 2, "drvier"},
		"config check":      {[]string{"-c", bad, "config", "check"}, 2, ":6:5: "},
		"unknown VM":        {[]string{"-c", good, "run", "wbe"}, 2, `there is no VM "wbe"`},
		"not the builder":   {[]string{"-c", good, "due", "web"}, 255, "not the builder"},
		"no repository":     {[]string{"-c", good, "backups", "list"}, 1, "no repository there yet: the first backup makes it"},
		"restore, no --to":  {[]string{"-c", good, "restore", "web@latest"}, 2, "--to"},
		"restore, no where": {[]string{"-c", good, "restore", "web"}, 2, "VM@BACKUP"},
		"a group's word":    {[]string{"images", "lst"}, 2, `there is no "drydock images lst"`},
		"history, zero":     {[]string{"-c", good, "history", "-n", "0"}, 2, "1 or more"},
		"no image":          {[]string{"ls", "/no/such.qcow2"}, 1, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, code := run(t, c.args...)
			if code != c.code || !strings.Contains(stderr, c.want) {
				t.Errorf("exit code %d, stderr %q; want %d and %q", code, stderr, c.code, c.want)
			}
		})
	}
}

// TestErrorsArePrintable: what an error quotes never reaches the terminal as it is. Its
// lines stay lines.
func TestErrorsArePrintable(t *testing.T) {
	_, errs, code := run(t, "config", "check", "-c", writeConfig(t, "repository:\n\tpath: \x1b[31m\n"))
	if code != exitUsage || strings.ContainsRune(errs, 0x1b) || !strings.Contains(errs, `\u{1b}[31m`) || !strings.Contains(errs, "\n     2 | \t") {
		t.Errorf("exit code %d: %q", code, errs)
	}
}

func TestStatusAndHistoryBeforeTheFirstRound(t *testing.T) {
	path := writeConfig(t, small)
	if out, errs, code := run(t, "-c", path, "status"); code != 0 || !strings.Contains(out, "never") {
		t.Errorf("status: exit code %d, %q, %q", code, out, errs)
	}
	for verb, want := range map[string]string{"history": "[]\n", "status": `"vm": "web"`} {
		if out, errs, code := run(t, "-c", path, verb, "--json"); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s --json: exit code %d, %q, %q", verb, code, out, errs)
		}
	}
}

func TestConfigInit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "drydock.yaml")
	if _, errs, code := run(t, "-c", path, "config", "init"); code != 0 {
		t.Fatalf("config init: exit code %d, %q", code, errs)
	}
	if _, errs, code := run(t, "-c", path, "config", "check"); code != 0 {
		t.Errorf("the sample is not good: exit code %d, %q", code, errs)
	}
	if _, errs, code := run(t, "-c", path, "config", "init"); code != 1 || !strings.Contains(errs, "not touched") {
		t.Errorf("a second config init: exit code %d, %q", code, errs)
	}
	show, _, code := run(t, "-c", path, "config", "show")
	if again := writeConfig(t, show); code != 0 || !strings.Contains(show, "shutdown_timeout") {
		t.Errorf("config show: exit code %d, %q", code, show)
	} else if _, errs, code := run(t, "-c", again, "config", "check"); code != 0 {
		t.Errorf("what config show prints is not good: %q", errs)
	}
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestSamplesInTheDocs: every piece of YAML in the documentation is a good
// configuration, or a good part of one.
func TestSamplesInTheDocs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../../README.md")
	found := 0
	for _, page := range pages {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range yamlBlock.FindAllStringSubmatch(string(data), -1) {
			found++
			text := block[1]
			switch {
			case strings.HasPrefix(text, "      "): // a disk
				text = small + text + "images: {web: {}}\n"
			case strings.HasPrefix(text, "repository:") && !strings.Contains(text, "vms:"):
				text = strings.Replace(small, "repository: {path: repo}\n", text, 1)
			case !strings.Contains(text, "vms:"): // a section
				text = small + text
			}
			if _, err := config.Parse("/etc/drydock/"+filepath.Base(page), []byte(text)); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d samples were found", found)
	}
}

// TestSandboxLayersHaveOneSpelling: what the configuration allows to be missing
// is what the sandbox calls it.
func TestSandboxLayersHaveOneSpelling(t *testing.T) {
	var layers []string
	for _, l := range config.Layers() {
		layers = append(layers, string(l))
	}
	measures := sandbox.Measures()
	slices.Sort(layers)
	slices.Sort(measures)
	if !slices.Equal(layers, measures) {
		t.Errorf("the configuration knows %q, the sandbox %q", layers, measures)
	}
}

// TestSystemdBelowAFolder: what is said to be written is there, and what is said to be
// removed was.
func TestSystemdBelowAFolder(t *testing.T) {
	path, root := writeConfig(t, small), t.TempDir()
	written, errs, code := run(t, "-c", path, "systemd", "install", "--root", root)
	lines := strings.Split(strings.TrimSuffix(written, "\n"), "\n")
	if code != 0 || len(lines) < 5 {
		t.Fatalf("exit code %d, %q, %q", code, written, errs)
	}
	slices.Sort(lines)
	for _, line := range lines {
		if _, err := os.Lstat(strings.TrimPrefix(line, "wrote ")); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	removed, errs, code := run(t, "-c", path, "systemd", "remove", "--root", root)
	gone := strings.Split(strings.TrimSuffix(strings.ReplaceAll(removed, "removed ", "wrote "), "\n"), "\n")
	slices.Sort(gone)
	if code != 0 || !slices.Equal(gone, lines) {
		t.Errorf("exit code %d, %q removed of %q, %q", code, gone, lines, errs)
	}
}
