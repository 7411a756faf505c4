package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/fill"
	"github.com/drydock-vm/drydock/internal/qemuimg"
)

// TestForget: the record of a VM that is filled in goes before its skeletons. Who is killed
// in between would find one that nobody can go on with.
func TestForget(t *testing.T) {
	h := &host{config: &config.Config{State: t.TempDir()}}
	folder := h.fromFolder("web")
	must(t, os.MkdirAll(folder, 0o700))
	for i := range 30 {
		if i == 15 {
			must(t, h.writeFromBackup(&fromBackup{VM: "web"}))
		}
		must(t, os.WriteFile(filepath.Join(folder, fmt.Sprintf("data%d.skeleton", i)), nil, 0o600))
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	must(t, err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, folder, unix.IN_DELETE)
	must(t, err)
	must(t, h.forget("web"))
	event := make([]byte, unix.SizeofInotifyEvent+unix.NAME_MAX+1)
	n, err := unix.Read(watch, event)
	must(t, err)
	name, _, _ := bytes.Cut(event[unix.SizeofInotifyEvent:n], []byte{0})
	if string(name) != fromRecord {
		t.Errorf("%s goes first", name)
	}
	if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
}

// TestBegun: another skeleton may be made of a disk for as long as no guest has what was
// served of the first one, and when it needs it no more.
func TestBegun(t *testing.T) {
	dir := t.TempDir()
	f := &filling{files: fill.Files{Socket: filepath.Join(dir, "socket"), Tool: qemuimg.New(qemuimg.Options{})}}
	at := func(name string) string { return filepath.Join(dir, name) }
	empty, err := os.Create(at("empty"))
	must(t, err)
	defer empty.Close()
	content, err := raw.Open(empty, 1<<20)
	must(t, err)
	for _, name := range []string{"put", "written"} {
		must(t, f.files.Put(t.Context(), fill.Disk{Name: name, Path: at(name), Kept: at(name + ".kept"), Content: content}))
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", at("filled"), "1M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		name string
		put  bool // as the record says
		want bool
	}{
		{"none", false, false},
		{"filled", false, false}, // what was there before
		{"put", false, true},
		{"written", true, true},
		{"filled", true, false},
		{"gone", true, true},
	} {
		if got, err := f.begun(fromDisk{Name: c.name, Path: at(c.name), Put: c.put}); err != nil || got != c.want {
			t.Errorf("%s, put %t: %t, %v", c.name, c.put, got, err)
		}
	}
}
