//go:build linux

package qemu

import (
	"slices"
	"strings"
	"testing"
)

func TestCommand(t *testing.T) {
	own := []string{
		"-pidfile", "pid",
		"-chardev", "socket,id=drydock-qmp,path=qmp.sock,server=on,wait=off",
		"-mon", "chardev=drydock-qmp,mode=control",
	}
	name := []string{"-name", "guest=web"}
	display := []string{"-display", "none"}
	serial := []string{
		"-chardev", "file,id=drydock-console,append=on,path=/log/a,,b",
		"-serial", "chardev:drydock-console",
	}
	for _, c := range []struct {
		command string
		want    [][]string
		console string
	}{
		{"qemu-system-x86_64", [][]string{own, name, display, serial}, "/log/a,b"},
		{"nice -n 5 qemu-system-x86_64", [][]string{own, name, display, serial}, "/log/a,b"},
		{"qemu -name w -display gtk", [][]string{own, serial}, "/log/a,b"},
		{"qemu --name w --vnc :1", [][]string{own, serial}, "/log/a,b"},
		{"qemu -nographic", [][]string{own, name}, ""},
		{"qemu -serial none", [][]string{own, name, display}, ""},
	} {
		m, err := New(Options{
			Name: "web", Command: strings.Fields(c.command), RuntimeDir: "/run/web", LogDir: "/log", Console: "/log/a,b",
		})
		if err != nil {
			t.Errorf("%s: %v", c.command, err)
			continue
		}
		if want := slices.Concat(c.want...); !slices.Equal(m.args, want) {
			t.Errorf("%s: appends %q, want %q", c.command, m.args, want)
		}
		if m.ConsolePath() != c.console {
			t.Errorf("%s: console %q", c.command, m.ConsolePath())
		}
	}
}

func TestRefused(t *testing.T) {
	good := Options{Name: "web", Command: []string{"qemu"}, RuntimeDir: "/run/web", LogDir: "/log"}
	if m, err := New(good); err != nil || m.ConsolePath() != "/log/web.console.log" {
		t.Fatalf("%v, %v", m, err)
	}
	for name, spoil := range map[string]func(*Options){
		"daemonize":     func(o *Options) { o.Command = []string{"qemu", "-daemonize"} },
		"pidfile":       func(o *Options) { o.Command = []string{"qemu", "--pidfile", "p"} },
		"-S":            func(o *Options) { o.Command = []string{"qemu", "-S"} },
		"preconfig":     func(o *Options) { o.Command = []string{"qemu", "-preconfig"} },
		"incoming":      func(o *Options) { o.Command = []string{"qemu", "-incoming", "tcp:0:1"} },
		"no-shutdown":   func(o *Options) { o.Command = []string{"qemu", "-no-shutdown"} },
		"snapshot":      func(o *Options) { o.Command = []string{"qemu", "-snapshot"} },
		"NUL byte":      func(o *Options) { o.Command = []string{"qemu", "a\x00b"} },
		"empty":         func(o *Options) { o.Command = nil },
		"name":          func(o *Options) { o.Name = "a/b" },
		"absolute path": func(o *Options) { o.RuntimeDir = "run" },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
