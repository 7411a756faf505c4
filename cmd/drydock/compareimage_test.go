package main_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/testguest"
)

// noise writes what no program compresses to a file, MiB by MiB.
func noise(t *testing.T, path string, seed uint64, at []int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	defer f.Close()
	for _, offset := range at {
		var key [32]byte
		binary.LittleEndian.PutUint64(key[:], seed)
		binary.LittleEndian.PutUint64(key[8:], uint64(offset))
		piece := make([]byte, 1<<20)
		rand.NewChaCha8(key).Read(piece)
		_, err := f.WriteAt(piece, offset)
		must(t, err)
	}
}

// mebibytes are the offsets of all pieces of 1 MiB up to size.
func mebibytes(size int64) (at []int64) {
	for offset := int64(0); offset < size; offset += 1 << 20 {
		at = append(at, offset)
	}
	return at
}

// anywhere are n offsets below size, no two of them less than 2 MiB apart.
func anywhere(n int, size int64) (at []int64) {
	rnd := rand.New(rand.NewPCG(1, 2))
	each := size / int64(n)
	for i := range n {
		at = append(at, int64(i)*each+rnd.Int64N((each-2<<20)/512)*512)
	}
	return at
}

// imageHost has one VM, which is off, with one disk.
func imageHost(t *testing.T, path, disk string) *host {
	t.Helper()
	h := newHost(t)
	g := testguest.New(t, testguest.Options{Name: "store"})
	g.DataPath = path
	h.vm(g)
	text := strings.Replace(h.machine.String(), "format: qcow2, mount: /var}", disk, 1)
	h.machine.Reset()
	h.machine.WriteString(text)
	h.write()
	return h
}

// TestCompareScattered changes 40 pieces of 1 MiB anywhere in a disk of 1 GiB, and says
// by how much that makes the repositories of drydock, restic and borg grow.
func TestCompareScattered(t *testing.T) {
	benchdisk.Wanted(t)
	dir := t.TempDir()
	disk, key := filepath.Join(dir, "store.raw"), filepath.Join(dir, "key")
	must(t, os.WriteFile(key, []byte("a password\n"), 0o600))
	noise(t, disk, 1, mebibytes(1<<30))
	h := imageHost(t, disk, "format: raw, backup: image}")
	program := func(env, name string, args ...string) {
		c := exec.Command(name, args...)
		c.Env = append(os.Environ(), env)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	resticIn, borgIn, nights := filepath.Join(dir, "restic"), filepath.Join(dir, "borg"), 0
	restic := func(args ...string) {
		program("RESTIC_PASSWORD_FILE="+key, "restic", append([]string{"-r", resticIn, "--no-cache"}, args...)...)
	}
	borg := func(args ...string) { program("BORG_BASE_DIR="+dir, "borg", args...) }
	restic("init")
	borg("init", "--encryption", "none", borgIn)
	night := func() (sizes [3]int64) {
		nights++
		h.run(0, "run")
		restic("backup", disk)
		borg("create", fmt.Sprintf("%s::%d", borgIn, nights), disk)
		return [3]int64{benchdisk.FolderSize(t, h.where), benchdisk.FolderSize(t, resticIn), benchdisk.FolderSize(t, borgIn)}
	}
	first := night()
	noise(t, disk, 2, anywhere(40, 1<<30))
	second := night()
	for i, name := range []string{"drydock", "restic", "borg"} {
		t.Logf("%-8s 40 MiB changed, %.1f MiB more in the repository", name, float64(second[i]-first[i])/(1<<20))
	}
	if grown := second[0] - first[0]; grown > 45<<20 {
		t.Errorf("drydock stored %d bytes more, the aim is 45 MiB", grown)
	}
}

// TestCompareImage changes 1 % of a qcow2 of 20 GiB with 5 GiB in it, and says how long
// the backup takes, to the first one.
func TestCompareImage(t *testing.T) {
	benchdisk.Wanted(t)
	dir := t.TempDir()
	raw, disk := filepath.Join(dir, "store.raw"), filepath.Join(dir, "store.qcow2")
	const data = 5 << 30
	noise(t, raw, 1, mebibytes(data))
	must(t, os.Truncate(raw, 20<<30))
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk)
	must(t, os.Remove(raw))
	h := imageHost(t, disk, "format: qcow2, backup: image, dirty_bitmap: true}")
	// night returns how long the backup took, and the whole round.
	night := func() (backup, whole time.Duration) {
		var r round.Report
		start := time.Now()
		h.json(&r, 0, "run")
		return r.VMs[0].Backup.Duration, time.Since(start)
	}
	first, firstRound := night()
	unchanged, _ := night()
	changes := []string{"-f", "qcow2"}
	for i, offset := range anywhere(data/100>>20, data) {
		piece := filepath.Join(dir, fmt.Sprintf("piece%d", i))
		noise(t, piece, uint64(100+i), []int64{0})
		changes = append(changes, "-c", fmt.Sprintf("write -s %s %d 1M", piece, offset))
	}
	tool(t, "qemu-io", append(changes, disk)...)
	changed, changedRound := night()
	ratio := func(a, b time.Duration) float64 { return a.Seconds() / b.Seconds() }
	t.Logf("the backup: first %.1f s; unchanged %.2f s, %.4f of that; 1 %% changed %.2f s, %.4f of that", first.Seconds(),
		unchanged.Seconds(), ratio(unchanged, first), changed.Seconds(), ratio(changed, first))
	t.Logf("the whole round: first %.1f s; 1 %% changed %.2f s, %.4f of that", firstRound.Seconds(), changedRound.Seconds(), ratio(changedRound, firstRound))
}
