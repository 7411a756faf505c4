//go:build linux

package libvirt

import (
	"slices"
	"testing"
)

func TestCommand(t *testing.T) {
	for line, want := range map[string][]string{
		"LC_ALL=C \\\nPATH='/a b' \\\n/usr/bin/qemu \\\n-name guest=web \\\n-S \\\n-m 64":                                         {"/usr/bin/qemu", "-name", "guest=web", "-m", "64"},
		`/q -object '{"qom-type":"secret","id":"masterKey0"}' -object '{"id":"pc.ram"}'`:                                          {"/q", "-object", `{"id":"pc.ram"}`},
		"/q -chardev socket,id=charmonitor,path=/m -mon chardev=charmonitor,id=monitor -chardev file,id=charserial0 -no-shutdown": {"/q", "-chardev", "file,id=charserial0"},
		`/q 'it'\''s' a=b ''`: {"/q", "it's", "a=b", ""},
	} {
		got, err := command(line)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s\nis %q, want %q (%v)", line, got, want, err)
		}
	}
	for _, line := range []string{"", "LC_ALL=C", "/q 'open"} {
		if got, err := command(line); err == nil {
			t.Errorf("%q is %q", line, got)
		}
	}
}
