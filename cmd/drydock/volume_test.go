package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// dataDisk is a disk of the guest beside its root.
type dataDisk struct {
	name, fstype, format string
	key                  string // volume: or partition: in the configuration
	path                 string
}

// TestEveryFilesystem has a guest with an ext4 in a logical volume, an XFS and a
// btrfs backed up in one round, restores all of it with restic, and compares that
// with what the kernel sees on the disks.
func TestEveryFilesystem(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1"})
	disks := []dataDisk{
		{name: "lvm", fstype: "ext4", format: "qcow2", key: "volume: store/data"},
		{name: "pool", fstype: "xfs", format: "raw"},
		{name: "tree", fstype: "btrfs", format: "qcow2"},
	}
	want := map[string]string{}
	var lines strings.Builder
	for i := range disks {
		d := &disks[i]
		d.path = h.path(d.name + "." + d.format)
		want[d.name] = d.make(t)
		id := fmt.Sprintf("extra%d", i)
		g.Command = append(g.Command, "-drive", "if=none,id="+id+",format="+d.format+",file="+d.path, "-device", fmt.Sprintf("nvme-ns,drive=%s,nsid=%d", id, i+3))
		key := d.key
		if key != "" {
			key = ", " + key
		}
		fmt.Fprintf(&lines, "      %s: {path: %s, format: %s, mount: /srv/%s%s}\n", d.name, d.path, d.format, d.name, key)
	}
	h.vm(g)
	h.machine.WriteString(lines.String())
	h.write()
	h.run(0, "start")
	r := rounds(t, h, 0)
	if r.Outcome != "done" || r.VMs[0].Backup == nil || r.VMs[0].Backup.FilesNew < 100 {
		t.Fatalf("%+v", r)
	}
	h.judged()
	to := h.path("restored")
	h.restic("restore", "latest", "--host", "web", "--target", to)
	for _, d := range disks {
		if got := treeText(t, filepath.Join(to, "srv", d.name)); got != want[d.name] {
			t.Errorf("%s came back different:\n%s\nwant\n%s", d.name, got, want[d.name])
		}
	}
	h.run(0, "stop")
	if ls := h.run(0, "ls", "web/lvm:/sub").stdout; !strings.Contains(ls, " file-7\n") {
		t.Errorf("ls of the logical volume: %s", ls)
	}
	if info := h.run(0, "info", "web/lvm").stdout; !strings.Contains(info, "store/data") || !strings.Contains(info, "LVM2_member") {
		t.Errorf("info: %s", info)
	}
}

// make makes the disk, and returns what is on it.
func (d *dataDisk) make(t *testing.T) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), d.name+".raw")
	tool(t, "truncate", "-s", "400M", raw)
	device := ""
	if strings.HasPrefix(d.key, "volume: ") {
		device = testlvm.Volume(t, raw, "store", "data")
	} else {
		device = testmount.Loop(t, raw, 0, 0)
	}
	tool(t, "mkfs."+d.fstype, device)
	dir := t.TempDir()
	unmount := testmount.At(t, device, dir)
	fill(t, dir)
	text := treeText(t, dir)
	unmount()
	testmount.Detach(t, device)
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", d.format, raw, d.path)
	return text
}

// fill writes files of many kinds.
func fill(t *testing.T, dir string) {
	t.Helper()
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o750))
	for i := range 60 {
		path := filepath.Join(dir, "sub", fmt.Sprintf("file-%d", i))
		must(t, os.WriteFile(path, bytes.Repeat(fmt.Appendf(nil, "%d;", i), i*i*i), 0o640))
		must(t, os.Chown(path, 1000+i, 70_000))
	}
	must(t, os.Link(filepath.Join(dir, "sub/file-7"), filepath.Join(dir, "second name")))
	must(t, os.Symlink(strings.Repeat("far/", 30), filepath.Join(dir, "link")))
	must(t, unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(5, 300))))
	must(t, unix.Setxattr(filepath.Join(dir, "sub/file-3"), "user.comment", []byte("kept"), 0))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	_, err = f.WriteAt([]byte("far away"), 30<<20)
	must(t, err)
	must(t, f.Close())
}

// treeText says all that is to come back of a folder: names, attributes, content.
func treeText(t *testing.T, dir string) string {
	t.Helper()
	c := exec.Command("sh", "-c", `find . -mindepth 1 ! -name lost+found -printf '%p %y %m %U:%G %s %T@ %l %n\n' | sort
find . -type f -print0 | sort -z | xargs -0 sha256sum
find . -type f -print0 | sort -z | xargs -0 getfattr -d -m user -h`)
	c.Dir = dir
	c.Env = append(os.Environ(), "LC_ALL=C")
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		t.Fatalf("list %s: %v\n%s", dir, err, said.Bytes())
	}
	var kept []string
	for line := range strings.Lines(string(out)) {
		// The size and links of folders are the filesystem's own business.
		if f := strings.Fields(line); len(f) > 5 && f[1] == "d" {
			line = strings.Join(append(f[:4], f[5]), " ") + "\n"
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}
