package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/config"
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
