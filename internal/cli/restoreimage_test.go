package cli

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/restore/treetest"
)

// differences compares a backup with an image, folders' times and content included.
func (w *world) differences(backup, image string) string {
	w.t.Helper()
	out, _ := w.run(0, "diff", "--content", "--folder-times", backup, image)
	return out
}

const lostFound = "+ /lost+found  dir\n"

// TestRestoreToAnImage: what the disks of a VM had in them, and what they were, is in
// new ones.
func TestRestoreToAnImage(t *testing.T) {
	w := newWorld(t)
	root, data := w.twoDisks()
	w.debugfs(data, "sif /lib/db mtime_extra 493827157", "ea_set /lib user.note hello", "sif / mode 040750", "sif / uid 70000", "sif /lib mtime @77")
	w.tool("", "tune2fs", "-L", "data disk", "-U", "12345678-1234-5678-9abc-123456789abc", data)
	w.backupDisks()

	dir := t.TempDir()
	made := filepath.Join(dir, "new.qcow2")
	out, errs := w.run(0, "restore", "web/data@latest", "--to-image", made)
	if !strings.Contains(out, "ext4 of 16.0 MiB") || errs != "" {
		t.Errorf("%q, %q", out, errs)
	}
	for _, pair := range [][2]string{{"web/data@latest", made}, {data, made}} {
		if out := w.differences(pair[0], pair[1]); out != "no differences\n" {
			t.Errorf("%q: %s", pair, out)
		}
	}
	if out, _ := w.run(0, "stat", made+":/lib/db"); !strings.Contains(out, ".123456789 ") {
		t.Errorf("%s", out)
	}
	if out, _ := w.run(0, "info", made); !strings.Contains(out, "data disk") {
		t.Errorf("%s", out)
	}
	w.tool("", "qemu-img", "convert", "-O", "raw", made, filepath.Join(dir, "check.raw"))
	if id := w.tool("", "blkid", "-o", "value", "-s", "UUID", filepath.Join(dir, "check.raw")); id != "12345678-1234-5678-9abc-123456789abc\n" {
		t.Errorf("UUID %q", id)
	}
	w.tool("", "e2fsck", "-f", "-n", filepath.Join(dir, "check.raw"))

	// The root disk's image has the place where the other is mounted, and no more.
	w.run(0, "restore", "web/root@latest", "--to-image", filepath.Join(dir, "root.raw"))
	out, _ = w.run(0, "diff", "--content", root, filepath.Join(dir, "root.raw"))
	if !strings.HasPrefix(out, "U /var  mode,owner") || !strings.Contains(out, "\nadded:   0 files of 0 B, 0 folders, 0 others\nremoved: 0 files of 0 B, 0 folders, 0 others\nchanged: 0 files of 0 B, 1 folders") {
		t.Errorf("root: %s", out)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("something is left behind: %v, %v", left, err)
	}
	for code, args := range map[int][][]string{
		1: {{made}, {filepath.Join(dir, "x.raw"), "--fs", "xfs"}, {filepath.Join(dir, "x.raw"), "--size", "1K"}, {"/no/such/folder/x.raw"}},
		2: {{filepath.Join(dir, "x.vmdk")}, {filepath.Join(dir, "x.raw"), "--size", "much"}, {filepath.Join(dir, "x.raw"), "--to", dir}, {filepath.Join(dir, "x.raw"), "--resume"}},
	} {
		for _, a := range args {
			w.run(code, append([]string{"restore", "web/data@latest", "--to-image"}, a...)...)
		}
	}
}

// TestRestoreOddFilesToAnImage: what people put into a tree. Those that a machine writes
// are in cmd/drydock.
func TestRestoreOddFilesToAnImage(t *testing.T) {
	w := newWorld(t)
	src := treetest.Make(t, treetest.Without{SymlinkXattrs: true, OddTargets: true, Sockets: true}) // restic 0.14 has no word for these
	w.backup("odd", src, "2026-11-01 03:00:00")
	ext4 := filepath.Join(t.TempDir(), "e.raw")
	w.run(0, "restore", "odd@latest", "--to-image", ext4, "--fs", "ext4", "--size", "256M")
	if out := w.differences("odd@latest", ext4); !strings.HasPrefix(out, lostFound+"added: ") || !strings.Contains(out, "changed: 0 files of 0 B, 0 folders, 0 others") {
		t.Errorf("ext4: %s", out)
	}
	w.tool("", "e2fsck", "-f", "-n", ext4)
}

// TestImageWithoutADamagedFile: it is left out, and named.
func TestImageWithoutADamagedFile(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good"), "this is fine")
	w.backup("odd", dir, "2026-11-01 03:00:00")
	before := w.packs()
	noise := make([]byte, 20000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // has no error
	write(t, filepath.Join(dir, "bad"), string(noise))
	w.backup("odd", dir, "2026-11-02 03:00:00")
	for path := range w.packs() {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if before[path] || st.Size() < int64(len(noise)) {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[100] ^= 1
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(t.TempDir(), "new.raw")
	_, errs := w.run(3, "restore", "odd@latest", "--to-image", image, "--fs", "ext4", "--size", "32M")
	if !strings.Contains(errs, "drydock: /bad: ") || strings.Contains(errs, "/good") {
		t.Errorf("%s", errs)
	}
	if out, _ := w.run(0, "ls", image); !strings.Contains(out, " good\n") || strings.Contains(out, "bad") {
		t.Errorf("%s", out)
	}
}

// packs returns the pack files of the repository.
func (w *world) packs() map[string]bool {
	w.t.Helper()
	list, err := filepath.Glob(w.repo + "/data/*/*")
	if err != nil || len(list) == 0 {
		w.t.Fatalf("%v, %v", list, err)
	}
	in := map[string]bool{}
	for _, p := range list {
		in[p] = true
	}
	return in
}

// TestKilledRestoreToAnImage: a restore that is killed leaves no image at the target,
// and the next one clears away what is left and makes it.
func TestKilledRestoreToAnImage(t *testing.T) {
	w := newWorld(t)
	src := t.TempDir()
	for i := range 300 {
		write(t, filepath.Join(src, "d", strings.Repeat("x", i%7+1), strings.Repeat("n", i%200+1)), strings.Repeat("content", 3000+i))
	}
	w.backup("odd", src, "2026-11-01 03:00:00")
	dir := t.TempDir()
	args := []string{"-c", w.config, "restore", "odd@latest", "--to-image", filepath.Join(dir, "new.raw"), "--fs", "ext4", "--size", "64M"}
	for killed := 0; killed < 3; {
		var errs bytes.Buffer
		c := exec.Command("/proc/self/exe", append([]string{"drydock"}, args...)...)
		c.Stderr = &errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		for wait := true; wait; {
			select {
			case err := <-done:
				t.Fatalf("it ended before it was killed: %v, %s", err, errs.String())
			case <-time.After(time.Millisecond):
				st, err := os.Stat(filepath.Join(dir, ".new.raw.drydock-partial"))
				wait = err != nil || st.Sys().(*syscall.Stat_t).Blocks == 0 // until mke2fs writes
			}
		}
		time.Sleep(time.Duration(killed) * 15 * time.Millisecond)
		_ = c.Process.Kill() // if it has ended, the wait says so
		if err := <-done; err == nil {
			t.Fatal("it was too fast to be killed")
		}
		killed++
		if _, err := os.Stat(filepath.Join(dir, "new.raw")); err == nil {
			t.Fatal("half an image is at the target")
		}
	}
	if out, errs, code := run(t, args...); code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	if out := w.differences("odd@latest", filepath.Join(dir, "new.raw")); !strings.Contains(out, "added:   0 files") || strings.Contains(out, "M /") {
		t.Errorf("%s", out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("something is left behind: %v, %v", left, err)
	}
}

// TestRestoreToATar: --to - is drydock tar.
func TestRestoreToATar(t *testing.T) {
	w := newWorld(t)
	dir := w.twoTrees()
	out, _ := w.run(0, "restore", "web@latest:/etc", "--to", "-")
	to := t.TempDir()
	c := exec.CommandContext(t.Context(), "tar", "-x", "-C", to)
	c.Stdin = strings.NewReader(out)
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, text)
	}
	w.tool("", "diff", "-r", filepath.Join(to, "etc"), filepath.Join(dir, "etc"))
}

func TestProgressText(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		done, of int64
		took     time.Duration
		want     string
	}{
		{gib, 0, time.Minute, "x: 1.0 GiB"},
		{1, gib, time.Minute, "x: 1 B of 1.0 GiB, 0 %"},
		{gib / 4, gib, time.Minute, "x: 256.0 MiB of 1.0 GiB, 25 %, about 3m0s left"},
		{2 * gib, gib, time.Minute, "x: 2.0 GiB of 1.0 GiB, 100 %"},
	} {
		if got := progressText("x", c.done, c.of, c.took); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
