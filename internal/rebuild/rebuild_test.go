package rebuild_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/rebuild"
	"github.com/drydock-vm/drydock/internal/repository"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestConfigChanged: what somebody has written into the configuration while the disks
// were being restored is not lost.
func TestConfigChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drydock.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	plan := func(was, text string) *rebuild.Plan {
		p, err := rebuild.Make(&definition.Definition{VM: "web"}, rebuild.Options{
			Snapshot: new(repository.Snapshot), Allow: []string{"/srv"},
			Config: rebuild.Config{Path: path, Was: []byte(was), Text: []byte(text)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	write("one\n")
	p := plan("one\n", "one\nweb\n")
	write("one\ntwo\n")
	if _, err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "changed since") || read(t, path) != "one\ntwo\n" {
		t.Errorf("%v, and the file is %q", err, read(t, path))
	}
	for _, next := range []string{"one\ntwo\nweb\n", "one\ntwo\nweb\ndb\n"} {
		was := read(t, path)
		if _, err := plan(was, next).Run(t.Context()); err != nil || read(t, path) != next || read(t, path+".previous") != was {
			t.Errorf("%v, and the files are %q and %q", err, read(t, path), read(t, path+".previous"))
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	// One that came to be meanwhile.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p = plan("", "web\n")
	write("mine\n")
	if _, err := p.Run(t.Context()); err == nil || read(t, path) != "mine\n" {
		t.Errorf("%v, and the file is %q", err, read(t, path))
	}
}

// TestElsewhere: what lies where nothing may come is not even looked at, and what is
// kept of the one who overwrote before is not overwritten.
func TestElsewhere(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"in/unit", "in/unit.previous", "in/other", "out"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(dir+"/in/other", dir+"/in/other.previous"); err != nil { // cut off between two steps
		t.Fatal(err)
	}
	file := func(name, sum string) definition.File {
		return definition.File{Path: filepath.Join(dir, name), Role: definition.RoleUnit, Owner: definition.Owner{Mode: 0o644}, Size: 1, SHA256: sum}
	}
	const x, y = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa"
	p, err := rebuild.Make(&definition.Definition{VM: "web", Files: []definition.File{file("out", x), file("in/unit", y), file("in/other", y), file("in/unit.previous", x)}},
		rebuild.Options{Snapshot: new(repository.Snapshot), Allow: []string{dir + "/in"}, Overwrite: true, Config: rebuild.Config{Path: dir + "/drydock.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"have not allowed", "unit.previous, and a file of that name is there", "", ""} {
		if got := p.Items[i].Problem; !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, want %q", p.Items[i].Path, got, want)
		}
	}
	if p.Items[2].Action != rebuild.Replace || p.Items[3].Action != rebuild.There {
		t.Errorf("%+v, %+v", p.Items[2], p.Items[3])
	}
}

// TestInstalled: a root disk that comes back as it was backed up is on record as of the
// version that it had, and never as of that which was there in its place.
func TestInstalled(t *testing.T) {
	dir := t.TempDir()
	store := image.New(image.Options{Dir: filepath.Join(dir, "images")})
	version := func(name string) image.Version {
		v, err := store.Import(t.Context(), "base", name, bytes.NewReader(bytes.Repeat([]byte(name), 512)), image.Want{}, image.Meta{})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v1, v2 := version("v1"), version("v2")
	path := filepath.Join(dir, "root.raw")
	if err := os.WriteFile(path, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	s := &repository.Snapshot{Tags: []string{"image:root"}}
	for want, release := range map[string]*definition.Release{
		"v1": {Image: "base", Version: "v1", Size: v1.Size, SHA256: v1.SHA256},
		"":   {Image: "base", Version: "v0", Size: 512, SHA256: strings.Repeat("0", 64)},
	} {
		if err := store.Commit("web", "root", path, v2); err != nil {
			t.Fatal(err)
		}
		// A run that was cut off behind the disk has left this.
		done := fmt.Sprintf(`{"backup":%q,"disks":{%q:{"device":%d,"inode":%d,"size":512,"modified":%d}}}`, s.ID, path, st.Dev, st.Ino, info.ModTime().UnixNano())
		if err := os.MkdirAll(filepath.Join(dir, "restored"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "restored/web.json"), []byte(done), 0o600); err != nil {
			t.Fatal(err)
		}
		d := definition.Disk{Name: "root", Path: path, Format: "raw", Size: 512, Backup: "image", Image: "base", Release: release}
		p, err := rebuild.Make(&definition.Definition{VM: "web", Disks: []definition.Disk{d}}, rebuild.Options{
			Snapshot: s, Allow: []string{dir}, State: dir, Store: store, Config: rebuild.Config{Path: filepath.Join(dir, "drydock.yaml")},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Run(t.Context()); err != nil || p.Items[0].Action != rebuild.There {
			t.Fatalf("%+v, %v", p.Items[0], err)
		}
		if in, _, err := store.Installed("web", "root"); err != nil || in.Version != want {
			t.Errorf("on record is %q, %v; want %q", in.Version, err, want)
		}
	}
}

// TestNoSize: a disk that could not be looked at when the backup was made is not made
// with room for nothing.
func TestNoSize(t *testing.T) {
	dir := t.TempDir()
	disk := func(name string, size int64) definition.Disk {
		return definition.Disk{Name: name, Path: filepath.Join(dir, name), Format: "raw", Size: size, Backup: "off"}
	}
	p, err := rebuild.Make(&definition.Definition{VM: "web", Disks: []definition.Disk{disk("a", 0), disk("b", 512)}},
		rebuild.Options{Snapshot: new(repository.Snapshot), Allow: []string{dir}, State: dir, Config: rebuild.Config{Path: filepath.Join(dir, "drydock.yaml")}})
	if err != nil || !strings.Contains(p.Items[0].Problem, "how large it was") || p.Items[1].Problem != "" {
		t.Errorf("%+v, %v", p, err)
	}
}
