package cli

import (
	"errors"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]target{
		"/a/b.qcow2":          {image: "/a/b.qcow2", format: "qcow2", path: []byte("/")},
		"b.raw:/etc/passwd":   {image: "b.raw", format: "raw", path: []byte("/etc/passwd")},
		"b.img":               {image: "b.img", format: "raw", path: []byte("/")},
		"b.iso":               {image: "b.iso", format: "raw", path: []byte("/")},
		"b.qcow2#night:/etc":  {image: "b.qcow2", format: "qcow2", snapshot: "night", path: []byte("/etc")},
		"web":                 {vm: "web", path: []byte("/")},
		"web/data":            {vm: "web", disk: "data", path: []byte("/")},
		"web/data#s":          {vm: "web", disk: "data", snapshot: "s", path: []byte("/")},
		"web@latest:/var":     {vm: "web", backup: "latest", path: []byte("/var")},
		"web/data@1a2b":       {vm: "web", disk: "data", backup: "1a2b", path: []byte("/")},
		"web@:/latest/etc":    {vm: "web", history: true, path: []byte("/latest/etc")},
		"web@2026-11-24:/a:/": {vm: "web", backup: "2026-11-24", path: []byte("/a:/")},
	} {
		got, err := parseTarget(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if string(got.path) != string(want.path) {
			t.Errorf("%q: path %q, want %q", text, got.path, want.path)
		}
		got.path, want.path = nil, nil
		if got.image != want.image || got.format != want.format || got.vm != want.vm || got.disk != want.disk ||
			got.backup != want.backup || got.history != want.history || got.snapshot != want.snapshot {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	for _, text := range []string{"", "web/data@", "web@#s", "web/a/b", "web#", "@latest", "web@latest#s"} {
		_, err := parseTarget(text)
		var exit *exitError
		if !errors.As(err, &exit) || exit.code != exitUsage {
			t.Errorf("%q: %v, want a usage error", text, err)
		}
	}
}
