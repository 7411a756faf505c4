package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testmount"
)

// lookRun runs drydock without a configuration, as anybody would, and returns what
// it printed.
func lookRun(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	c := exec.Command(drydock, append([]string{"--config", "/no/such.yaml"}, args...)...) // a later --config wins
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	exit := new(exec.ExitError)
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := c.ProcessState.ExitCode(); got != code {
		t.Fatalf("drydock %q: exit code %d, want %d\n%s%s", args, got, code, out.Bytes(), errs.Bytes())
	}
	return out.String(), errs.String()
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// lookDisk makes a disk of three partitions: an ESP, a root with an fstab, and
// data that it mounts at /srv. It returns the qcow2 image and the raw one.
func lookDisk(t *testing.T) (image, raw string) {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(t, os.WriteFile(at(name), []byte(content), 0o644))
	}
	write("root/etc/fstab", "LABEL=root / ext4 defaults 0 1\nLABEL=data /srv ext4 defaults 0 2\nUUID=0000 /lost xfs nofail 0 0\n")
	write("root/etc/passwd", "root:x:0:0::/:/bin/sh\n")
	must(t, os.MkdirAll(at("root/srv"), 0o755))
	write("data/sub/\x1b[31mred", "the content\n")
	must(t, os.WriteFile(at("data/hole"), nil, 0o600))
	must(t, os.Truncate(at("data/hole"), 8<<20))
	must(t, os.Symlink("/etc/passwd", at("data/link")))
	must(t, syscall.Setxattr(at("data/sub"), "user.note", []byte("hello"), 0))

	raw = at("web.raw")
	tool(t, "truncate", "-s", "100M", raw)
	tool(t, "sgdisk", "-n", "1:2048:+16M", "-t", "1:ef00", "-c", "1:ESP", "-n", "2:34816:+32M", "-c", "2:root", "-n", "3:100352:+40M", raw)
	tool(t, "mkfs.fat", "-n", "EFI", "--offset", "2048", raw, "16384")
	for _, p := range []struct {
		label, from string
		size, first int
	}{{"root", "root", 32, 34816}, {"data", "data", 40, 100352}} {
		tool(t, "mke2fs", "-q", "-t", "ext4", "-L", p.label, "-d", at(p.from), at(p.label+".img"), fmt.Sprintf("%dM", p.size))
		tool(t, "dd", "if="+at(p.label+".img"), "of="+raw, "bs=512", fmt.Sprintf("seek=%d", p.first), "conv=notrunc", "status=none")
	}
	image = at("web.qcow2")
	tool(t, "qemu-img", "convert", "-c", "-O", "qcow2", raw, image)
	return image, raw
}

// TestLook looks into a disk with every verb, with no configuration.
func TestLook(t *testing.T) {
	t.Parallel() // most of it is waiting
	image, raw := lookDisk(t)
	tool(t, "qemu-img", "snapshot", "-c", "before", image)
	tool(t, "qemu-img", "bitmap", "--add", image, "night")

	t.Run("info", func(t *testing.T) {
		out, _ := lookRun(t, 0, "info", image)
		for _, want := range []string{"qcow2 v3", `snapshot 1 "before"`, `dirty bitmap "night"`, "gpt partition table", `vfat "EFI"`, `ext4 "root"`,
			"the guest sees", "/srv                     web-part3", `"/lost" is not shown`} {
			if !strings.Contains(out, want) {
				t.Errorf("there is no %q in\n%s", want, out)
			}
		}
		var report struct {
			Volumes []struct{ Name, Content, Label string }
			Guest   []struct{ Path, Volume string }
		}
		out, _ = lookRun(t, 0, "info", "--json", image)
		must(t, json.Unmarshal([]byte(out), &report))
		if len(report.Volumes) != 4 || report.Volumes[3].Label != "data" || len(report.Guest) != 2 || report.Guest[1].Volume != "web-part3" {
			t.Errorf("%+v", report)
		}
	})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"ls", image + ":/srv/sub"}, `\u{1b}[31mred`},
		{[]string{"ls", image + "#before:/etc"}, " passwd\n"},
		{[]string{"ls", "--volume", "3", image}, " hole\n"},
		{[]string{"ls", "--volume", "web-part3", raw}, " hole\n"},
		{[]string{"tree", image}, "└── srv/\n    ├── hole\n    ├── link -> /etc/passwd\n"},
		{[]string{"tree", "-L", "1", image}, "└── srv/\n"},
		{[]string{"stat", image + ":/srv/sub"}, "user.note = hello"},
		{[]string{"stat", image + ":/srv/hole"}, "0 bytes, the rest is holes"},
		{[]string{"stat", "--json", image + ":/srv/link"}, `"target": "/etc/passwd"`},
		{[]string{"cat", image + ":/etc/passwd"}, "root:x:0:0::/:/bin/sh\n"},
	} {
		out, notes := lookRun(t, 0, c.args...)
		if !strings.Contains(out, c.want) {
			t.Errorf("drydock %q: there is no %q in\n%s", c.args, c.want, out)
		}
		if strings.Contains(out+notes, "\x1b") {
			t.Errorf("drydock %q: an escape sequence came through", c.args)
		}
	}
	t.Run("tar", func(t *testing.T) { compareTar(t, image) })
	t.Run("raw", func(t *testing.T) {
		out, _ := lookRun(t, 0, "cat", "--raw", image)
		want, err := os.ReadFile(raw)
		if must(t, err); out != string(want) {
			t.Error("the disk is not what it was made from")
		}
		if part, _ := lookRun(t, 0, "cat", "--raw", "--volume", "2", image); part != string(want[34816*512:][:len(part)]) || len(part) != 32<<20 {
			t.Errorf("a partition of %d bytes is not that of the disk", len(part))
		}
	})
}

// compareTar unpacks what drydock tar gives, twice the same, and looks for holes,
// attributes and links in it.
func compareTar(t *testing.T, image string) {
	out, _ := lookRun(t, 0, "tar", image)
	if again, _ := lookRun(t, 0, "tar", image); again != out {
		t.Error("two tars of one disk differ")
	}
	dir := t.TempDir()
	c := exec.Command("tar", "-C", dir, "--xattrs", "--xattrs-include=*", "-xpf", "-")
	c.Stdin = strings.NewReader(out)
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var st syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(dir, "srv/hole"), &st))
	value := make([]byte, 10)
	n, err := syscall.Getxattr(filepath.Join(dir, "srv/sub"), "user.note", value)
	if must(t, err); string(value[:n]) != "hello" || st.Size != 8<<20 || st.Blocks != 0 || len(out) > 1<<20 {
		t.Errorf("attribute %q, a hole of %d bytes in %d blocks, a tar of %d bytes", value[:n], st.Size, st.Blocks, len(out))
	}
	if content, err := os.ReadFile(filepath.Join(dir, "srv/sub/\x1b[31mred")); string(content) != "the content\n" {
		t.Errorf("%q, %v", content, err)
	}
}

// TestLookAtNoDisk: what is no disk, or no part of one, is said in one line.
func TestLookAtNoDisk(t *testing.T) {
	t.Parallel() // most of it is waiting
	image, raw := lookDisk(t)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "pipe.raw")
	must(t, syscall.Mkfifo(fifo, 0o600))
	empty := filepath.Join(dir, "empty.qcow2")
	must(t, os.WriteFile(empty, nil, 0o600))
	over := filepath.Join(dir, "over.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, over)
	cut := filepath.Join(dir, "cut.raw")
	data, err := os.ReadFile(raw)
	must(t, err)
	must(t, os.WriteFile(cut, data[:60<<20], 0o600))

	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{1, "no such file", []string{"ls", filepath.Join(dir, "lost.raw")}},
		{1, "neither a file nor a block device", []string{"ls", fifo}},
		{1, "neither a file nor a block device", []string{"ls", dir + "/.raw"}},
		{1, "qcow2: header", []string{"info", empty}},
		{1, "was not given", []string{"ls", over}},
		{2, "ends in .qcow2", []string{"ls", "--backing", "web/data", over}},
		{2, `has no volume "9"`, []string{"ls", "--volume", "9", image}},
		{1, "swap", []string{"ls", "--volume", "1", swapDisk(t)}},
		{1, "does not exist", []string{"ls", image + "#lost"}},
		{1, "does not exist", []string{"cat", image + ":/no/such"}},
		{1, "is a dir", []string{"cat", image + ":/etc"}},
		{2, "--socket is missing", []string{"nbd", image}},
		{2, "is no disk", []string{"nbd", image + ":/etc", "--socket", filepath.Join(dir, "s")}},
		{1, "no such file", []string{"mount", image, filepath.Join(dir, "lost")}},
	} {
		if strings.HasSuffix(c.args[len(c.args)-1], "/.raw") {
			must(t, os.Mkdir(dir+"/.raw", 0o700))
		}
		out, text := lookRun(t, c.code, c.args...)
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "drydock: ") || !strings.Contains(last, c.want) || out != "" {
			t.Errorf("drydock %q says %q and %q, want %q", c.args, out, text, c.want)
		}
	}
	out, _ := lookRun(t, 0, "ls", "--backing", raw, over+":/etc")
	if !strings.Contains(out, "passwd") {
		t.Errorf("through a declared backing file: %s", out)
	}
	if out, _ := lookRun(t, 0, "info", cut); !strings.Contains(out, "web") && !strings.Contains(out, "cut") {
		t.Errorf("a disk that is cut short: %s", out)
	}
}

func swapDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "swap.raw")
	tool(t, "truncate", "-s", "40M", path)
	tool(t, "sgdisk", "-n", "1:2048:0", path)
	part := path + ".part"
	tool(t, "truncate", "-s", "16M", part)
	tool(t, "mkswap", part)
	tool(t, "dd", "if="+part, "of="+path, "bs=512", "seek=2048", "conv=notrunc", "status=none")
	return path
}

// background starts a drydock that runs until it is interrupted, and waits for its
// first line.
func background(t *testing.T, args ...string) (line string, stop func()) {
	t.Helper()
	c := exec.Command(drydock, append([]string{"--config", "/no/such.yaml"}, args...)...) // a later --config wins
	out, err := c.StdoutPipe()
	must(t, err)
	var errs bytes.Buffer
	c.Stderr = &errs
	must(t, c.Start())
	buf := make([]byte, 4096)
	n, _ := out.Read(buf)
	if n == 0 {
		_ = c.Wait()
		t.Fatalf("drydock %q: %s", args, errs.Bytes())
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		must(t, c.Process.Signal(os.Interrupt))
		kill := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
		defer kill.Stop()
		if err := c.Wait(); err != nil {
			t.Errorf("drydock %q: %v\n%s", args, err, errs.Bytes())
		}
	}
	t.Cleanup(stop)
	return strings.TrimSpace(string(buf[:n])), stop
}

// TestExport has NBD's own clients read a disk, and a partition.
func TestExport(t *testing.T) {
	t.Parallel() // most of it is waiting
	image, raw := lookDisk(t)
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
		want func() []byte
	}{
		{"disk", nil, func() []byte { data, err := os.ReadFile(raw); must(t, err); return data }},
		{"partition", []string{"--volume", "2"}, func() []byte { data, err := os.ReadFile(raw); must(t, err); return data[34816*512:][:32<<20] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket, to := filepath.Join(dir, c.name), filepath.Join(dir, c.name+".raw")
			uri, stop := background(t, append([]string{"nbd", image, "--socket", socket}, c.args...)...)
			tool(t, "nbdcopy", uri, to)
			got, err := os.ReadFile(to)
			if must(t, err); !bytes.Equal(got, c.want()) {
				t.Error("nbdcopy read something else")
			}
			if info := tool(t, "nbdinfo", "--json", uri); !strings.Contains(info, `"is_read_only": true`) {
				t.Errorf("nbdinfo: %s", info)
			}
			tool(t, "qemu-img", "map", "--image-opts", "driver=nbd,server.type=unix,server.path="+socket)
			stop()
			if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is still there: %v", err)
			}
		})
	}
}

// TestMount compares a mount with what went into the disk.
func TestMount(t *testing.T) {
	t.Parallel() // most of it is waiting
	image, _ := lookDisk(t)
	dir := t.TempDir()
	_, stop := background(t, "mount", image, dir)
	t.Cleanup(func() { _ = exec.Command("fusermount3", "-u", "-q", dir).Run() })
	if content, err := os.ReadFile(filepath.Join(dir, "srv/sub/\x1b[31mred")); string(content) != "the content\n" {
		t.Errorf("%q, %v", content, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing: %v", err)
	}
	options := tool(t, "findmnt", "-n", "-o", "OPTIONS", dir)
	for _, want := range []string{"ro", "nosuid", "nodev"} {
		if !strings.Contains(","+options, ","+want+",") {
			t.Errorf("mounted with %s", options)
		}
	}
	stop()
	// Nobody asks the mount itself: one that is left answers with an error, or not at all.
	mounts, err := os.ReadFile("/proc/self/mounts")
	if must(t, err); strings.Contains(string(mounts), " "+dir+" ") {
		t.Error("it is still mounted")
	}
}

// TestSubvolumes names the subvolumes of a btrfs, and looks into them.
func TestSubvolumes(t *testing.T) {
	t.Parallel() // most of it is waiting
	dir := t.TempDir()
	path := filepath.Join(dir, "pool.raw")
	tool(t, "truncate", "-s", "200M", path)
	tool(t, "mkfs.btrfs", "-q", path)
	mounted, unmount := testmount.Image(t, path, "")
	tool(t, "btrfs", "subvolume", "create", filepath.Join(mounted, "home"))
	err := os.WriteFile(filepath.Join(mounted, "home/letter"), []byte("dear reader\n"), 0o644)
	must(t, os.Mkdir(filepath.Join(mounted, "home/etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(mounted, "home/etc/os-release"), nil, 0o644)) // as a container has it
	tool(t, "btrfs", "subvolume", "snapshot", "-r", filepath.Join(mounted, "home"), filepath.Join(mounted, "kept"))
	unmount()
	must(t, err)
	if out, _ := lookRun(t, 0, "info", path); !strings.Contains(out, "subvolume 256 home\n") || !strings.Contains(out, "subvolume 257 kept, read-only, snapshot of home\n") {
		t.Errorf("info: %s", out)
	}
	if out, _ := lookRun(t, 0, "cat", path+":/kept/letter"); out != "dear reader\n" {
		t.Errorf("the snapshot holds %q", out)
	}
}
