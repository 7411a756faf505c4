package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/fusefs"
)

// TestMountOfAllBackups mounts a VM's backups, and compares the newest with the
// folder that it is of, and the folder of one disk.
func TestMountOfAllBackups(t *testing.T) {
	w := newWorld(t)
	dir := w.twoTrees()
	for target, want := range map[string]string{
		"web@": dir, "web@latest": dir, "web/data@latest": filepath.Join(dir, "var"), "web@latest:/etc": filepath.Join(dir, "etc"),
	} {
		t.Run(target, func(t *testing.T) {
			at := t.TempDir()
			w.mounted(t, target, at, func() {
				top := at
				if target == "web@" {
					if names, err := filepath.Glob(at + "/2026-11-0[12]T03:00:00*"); err != nil || len(names) != 2 {
						t.Errorf("%q, %v", names, err)
					}
					top = at + "/latest"
				}
				w.tool("", "diff", "-r", top+"/", want)
			})
		})
	}
	w.run(2, "mount", "web@latest:/etc/chmod", t.TempDir())
	w.run(1, "mount", "mail@", t.TempDir())
}

// mounted runs a function while drydock mount does its work, and then interrupts it.
func (w *world) mounted(t *testing.T, target, at string, do func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ready, done := make(chan struct{}), make(chan error)
	var errs bytes.Buffer
	a := &app{stdout: writerFunc(func() { close(ready) }), stderr: &errs, configPath: w.config, now: time.Now}
	go func() { done <- a.mount(ctx, target, at, fusefs.Options{}, new(looking)) }()
	select {
	case err := <-done:
		t.Fatalf("mount %s: %v", target, err)
	case <-ready:
	}
	do()
	stop()
	if err := <-done; err != nil || errs.Len() > 0 {
		t.Errorf("mount %s: %v, %s", target, err, errs.String())
	}
	if left, err := os.ReadDir(at); err != nil || len(left) > 0 {
		t.Errorf("%s is still mounted: %v, %v", target, left, err)
	}
}

// writerFunc is told of the first write.
func writerFunc(first func()) io.Writer { return &notice{first} }

type notice struct{ first func() }

func (n *notice) Write(p []byte) (int, error) {
	if n.first != nil {
		n.first()
		n.first = nil
	}
	return len(p), nil
}
