package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
)

// imageReport is what the tests look at of a round with a disk in image mode.
type imageReport struct {
	Outcome string
	VMs     []struct {
		Backup *struct {
			Images []struct {
				Disk           string
				Size           int64
				BytesUnchanged int64 `json:"bytes_unchanged"`
				BytesFree      int64 `json:"bytes_free"`
				BytesRead      int64 `json:"bytes_read"`
				BytesStored    int64 `json:"bytes_stored"`
				Bitmap, Whole  string
			}
		}
	}
}

// usedBlocks copies the blocks of an ext4 image that are in use, as e2fsprogs see
// it when they have replayed the journal as a mount does.
func usedBlocks(t *testing.T, image string) []byte {
	t.Helper()
	from, to := filepath.Join(t.TempDir(), "copy.raw"), filepath.Join(t.TempDir(), "used.raw")
	tool(t, "cp", "--sparse=always", image, from)
	tool(t, "sh", "-c", `e2fsck -y -E journal_only "$0" >/dev/null; test $? -le 1`, from)
	tool(t, "e2image", "-r", "-a", from, to)
	data, err := os.ReadFile(to)
	must(t, err)
	clear(data[:4096]) // e2fsck writes into the superblock when it ran
	return data
}

// differing names the first blocks in which two images differ.
func differing(a, b []byte) (blocks []int) {
	if len(a) != len(b) {
		return []int{-1}
	}
	for i := 0; i < len(a) && len(blocks) < 20; i += 4096 {
		if end := min(i+4096, len(a)); !bytes.Equal(a[i:end], b[i:end]) {
			blocks = append(blocks, i/4096)
		}
	}
	return blocks
}

// TestImageNights backs a real guest's disk up as an image, night after night: a
// first backup, one with a dirty bitmap, and one after the power was taken away.
// Every way back yields the blocks that the guest used.
func TestImageNights(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", DataSize: 256 << 20})
	h.vm(g)
	text := strings.Replace(h.machine.String(), "format: qcow2, mount: /var}", "format: qcow2, backup: image, dirty_bitmap: true}", 1)
	h.machine.Reset()
	h.machine.WriteString(text)
	h.write()
	ctx := t.Context()
	night := func() (r imageReport) {
		t.Helper()
		h.json(&r, 0, "run")
		if r.Outcome != "done" || len(r.VMs) != 1 || r.VMs[0].Backup == nil || len(r.VMs[0].Backup.Images) != 1 {
			t.Fatalf("the report has no image: %+v", r)
		}
		return r
	}
	h.run(0, "start")
	secret := []byte(strings.Repeat("the guest deleted this before the night. ", 100))
	must(t, g.Fill(ctx, "/var/many", 1, 200, 100000))
	must(t, g.Put(ctx, "/var/secret", secret))
	must(t, g.Delete(ctx, "/var/secret"))
	must(t, g.Sync(ctx))

	first := night().VMs[0].Backup.Images[0]
	if first.Disk != "data" || first.Size != 256<<20 || first.Whole == "" || first.BytesRead > 40<<20 || first.BytesFree == 0 {
		t.Errorf("first night: %+v", first)
	}
	must(t, g.Put(ctx, "/var/letter", []byte("written after the first night")))
	second := night().VMs[0].Backup.Images[0]
	if second.Bitmap == "" || second.BytesRead > first.BytesRead/2 || second.BytesUnchanged < 200<<20 || second.BytesStored > first.BytesStored/4 {
		t.Errorf("second night: %+v, after %+v", second, first)
	}
	must(t, g.Put(ctx, "/var/letter", []byte("written before the power was taken away")))
	if r := h.run(1, "restore", "web/data@latest", "--in-place"); !strings.Contains(r.stderr, "stop it first") {
		t.Errorf("in place of the disk of a running VM: %s", r.stderr)
	}
	pid, err := os.ReadFile(h.path("run", "vm", "web", "pid"))
	must(t, err)
	tool(t, "kill", "-9", strings.TrimSpace(string(pid))) // QMP's quit would save the bitmap
	third := night().VMs[0].Backup.Images[0]              // the VM is off, and stays off
	if third.Bitmap != "" || !strings.Contains(third.Whole, "in use") || third.BytesStored > first.BytesStored/4 {
		t.Errorf("third night: %+v", third)
	}

	h.judged()
	now := h.path("now.raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", g.DataPath, now)
	want := usedBlocks(t, now)
	h.restic("restore", "latest", "--target", h.path("restic"))
	h.run(0, "restore", "web/data@latest", "--to", h.path("back.raw"))
	h.run(0, "restore", "web/data@latest", "--to", h.path("back.qcow2"))
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", h.path("back.qcow2"), h.path("converted.raw"))
	socket := h.path("nbd.sock")
	uri, stop := background(t, "--config", h.config, "nbd", "web/data@latest", "--socket", socket)
	tool(t, "nbdcopy", uri, h.path("nbd.raw"))
	if zero := tool(t, "nbdinfo", "--map", "--totals", uri); !strings.Contains(zero, "zero") {
		t.Errorf("nbdinfo knows of no zeros: %s", zero)
	}
	stop()
	whole, err := os.ReadFile(h.path("back.raw"))
	must(t, err)
	for _, name := range []string{"restic/disks/data.raw", "converted.raw", "nbd.raw"} {
		if got, err := os.ReadFile(h.path(name)); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("%s differs from what drydock restores: %d bytes, %v", name, len(got), err)
		}
	}
	if blocks := differing(usedBlocks(t, h.path("back.raw")), want); blocks != nil {
		t.Errorf("what came back differs in blocks that are in use: %d", blocks)
	}
	if bytes.Contains(whole, secret[:40]) {
		t.Error("what the guest deleted before the first night is in the backup")
	}
	checkSparse(t, h.path("back.raw"), 60<<20)
	checkInPlace(t, h, g, want)
}

// checkSparse checks that an image takes less than limit bytes.
func checkSparse(t *testing.T, path string, limit int64) {
	t.Helper()
	out, err := exec.Command("du", "--block-size=1", path).Output()
	must(t, err)
	var size int64
	for _, c := range string(bytes.Fields(out)[0]) {
		size = size*10 + int64(c-'0')
	}
	if size > limit {
		t.Errorf("%s takes %d bytes", path, size)
	}
}

// checkInPlace ruins the disk, and has the last backup put in its place. The guest
// starts on it, and the ruined one is kept.
func checkInPlace(t *testing.T, h *host, g *testguest.Guest, want []byte) {
	t.Helper()
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 0x66 0 32M", g.DataPath)
	ruined, err := os.ReadFile(g.DataPath)
	must(t, err)
	var out struct{ Path, Kept string }
	h.json(&out, 0, "restore", "web/data@latest", "--in-place")
	if kept, err := os.ReadFile(out.Kept); err != nil || !bytes.Equal(kept, ruined) {
		t.Errorf("the old disk is not kept: %v", err)
	}
	raw := h.path("in-place.raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", g.DataPath, raw)
	if blocks := differing(usedBlocks(t, raw), want); blocks != nil {
		t.Errorf("the disk that was put in place differs: %d", blocks)
	}
	h.run(0, "start", "web")
	if letter, err := g.Get(t.Context(), "/var/letter"); healthy(t, g) == "" || err != nil || !strings.Contains(string(letter), "power was taken") {
		t.Errorf("the letter is %q, %v", letter, err)
	}
}
