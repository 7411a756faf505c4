package main_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
)

const (
	hugeSize = 15 << 40 // what the host's ext4 lets a file be
	// maxHuge is what any work on a sparse disk of that size may take of memory, in MiB:
	// 335 MB.
	maxHuge = 320
	// maxHugeList is the same where each of its segments is another, and the index has two
	// million blobs: 400 MB.
	maxHugeList = 381
)

// bounded is a host on which drydock is to take little memory.
type bounded struct {
	*host
	most int // MiB
}

// hugeHost has one VM, which is off, with a sparse disk of 15 TiB in image mode: an ext4
// with a few files.
func hugeHost(t *testing.T) (h *bounded, disk string) {
	t.Helper()
	dir := t.TempDir()
	disk = filepath.Join(dir, "store.raw")
	files := filepath.Join(dir, "files")
	must(t, os.Mkdir(files, 0o755))
	for i := range 40 {
		noise(t, filepath.Join(files, fmt.Sprintf("letter %02d", i)), uint64(i), []int64{0})
	}
	must(t, os.WriteFile(disk, nil, 0o600))
	must(t, os.Truncate(disk, hugeSize))
	tool(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-N", "1000000", "-O", "^has_journal,^resize_inode",
		"-E", "lazy_itable_init=1,packed_meta_blocks=1", "-d", files, disk)
	return &bounded{imageHost(t, disk, "format: raw, backup: image}"), maxHuge}, disk
}

// within runs drydock on a huge disk, and fails if it takes too much memory.
func (h *bounded) within(want string, args ...string) {
	h.t.Helper()
	mib, took, out := h.peak(args...)
	if !strings.Contains(out, want) {
		h.t.Errorf("%q does not say %q: %.400s", args, want, out)
	}
	h.measured(args, mib, took)
}

func (h *bounded) measured(args []string, mib int, took time.Duration) {
	h.t.Helper()
	h.t.Logf("%q: %d MiB, %s", args, mib, took.Round(100*time.Millisecond))
	if mib > h.most {
		h.t.Errorf("%q took %d MiB, more than %d", args, mib, h.most)
	}
}

// TestCompareHugeImage measures what it takes to back up a disk of 15 TiB, twice, and to
// look into what is stored.
func TestCompareHugeImage(t *testing.T) {
	benchdisk.Wanted(t)
	h, disk := hugeHost(t)
	h.within("", "run")
	letter := filepath.Join(t.TempDir(), "letter")
	noise(t, letter, 100, []int64{0})
	tool(t, "debugfs", "-w", "-R", fmt.Sprintf("write %s letter", letter), disk)
	h.within("", "run")
	h.within("", "run") // nothing has changed
	h.within("letter", "ls", "store/data@latest:/")
	h.within("letter", "find", "letter", "store/data@latest")
	h.copies()
	h.within("", "backups", "copy")
	h.looks("store", hugeSize)
}

// looks has what a backup of a disk with a long list of blobs is looked at with.
func (h *bounded) looks(vm string, size int64) {
	h.t.Helper()
	var list []listed
	h.json(&list, 0, "backups", "list", vm)
	oldest := vm + "@" + list[len(list)-1].ID
	h.within("data.raw", "find", "data.raw", vm)
	h.within("changed: ", "diff", oldest, vm+"@latest")
	h.within("data", "backups", "show", vm+"@latest")
	h.within("", "verify", "--mode", "quick", vm)
	h.within("", "backups", "rm", oldest)
	socket := h.path("nbd")
	h.serves([]string{"nbd", vm + "/data@latest", "--socket", socket}, func(uri string) {
		if out := tool(h.t, "nbdinfo", "--size", uri); strings.TrimSpace(out) != fmt.Sprint(size) {
			h.t.Errorf("the disk has %s bytes, want %d", out, size)
		}
		tool(h.t, "nbdinfo", "--map", "--totals", uri)
	})
	dir := h.t.TempDir()
	h.serves([]string{"mount", vm + "@latest", dir}, func(string) {
		info, err := os.Stat(filepath.Join(dir, "disks", "data.raw"))
		must(h.t, err)
		if info.Size() != size {
			h.t.Errorf("the file has %d bytes, want %d", info.Size(), size)
		}
	})
	h.within("", "restore", vm+"/data@latest", "--to", h.path("back.raw"))
	if info, err := os.Stat(h.path("back.raw")); err != nil || info.Size() != size {
		h.t.Errorf("what came back: %v, %v", info, err)
	}
}

// copies adds a place for copies to the configuration.
func (h *bounded) copies() {
	h.t.Helper()
	text, err := os.ReadFile(h.config)
	must(h.t, err)
	text = fmt.Appendf(text, "copies: [{path: %s, password_file: %s, retain: {}}]\n", h.path("copy"), h.path("copy.key"))
	must(h.t, os.WriteFile(h.config, text, 0o600))
}

// serves runs a drydock that serves until it is interrupted, and measures it as within
// does. Use gets the first line that it prints.
func (h *bounded) serves(args []string, use func(line string)) {
	h.t.Helper()
	c := h.command(h.t.Context(), args...)
	out, err := c.StdoutPipe()
	must(h.t, err)
	c.Stderr = os.Stderr
	done := make(chan struct{})
	go func() {
		defer close(done)
		line, _ := bufio.NewReader(out).ReadString('\n')
		use(strings.TrimSpace(line))
		_ = c.Process.Signal(os.Interrupt)
	}()
	mib, took := memory(h.t, c)
	<-done
	h.measured(args, int(mib>>20), took)
}

const hugeListConfig = `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repository}
vms:
  web: {driver: qemu, command: [qemu-system-x86_64], disks: {data: {path: %[1]s/web.raw, format: raw, backup: image}}}
`

// TestCompareHugeList measures what it takes to look at two backups with a file of two
// million pieces, of which no two are the same, as a disk of 15 TiB that is full would be
// one.
func TestCompareHugeList(t *testing.T) {
	benchdisk.Wanted(t)
	const count, piece = 15 << 17, 16
	h := &bounded{newHost(t), maxHugeList}
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, hugeListConfig, h.dir), 0o600))
	must(t, os.MkdirAll(h.path("state"), 0o700))
	must(t, os.WriteFile(h.path("state", "repository.key"), []byte("secret\n"), 0o600))
	ctx := t.Context()
	// In small packs, since index files of tiny pieces are large otherwise.
	opts := repository.CreateOptions{Options: repository.Options{PackSize: 4 << 20}}
	repo, err := repository.Create(ctx, local.New(h.where), []byte("secret"), opts)
	must(t, err)
	content := make([]repository.ID, count)
	for night := range 2 {
		at := time.Date(2026, 11, 1+night, 3, 0, 0, 0, time.UTC)
		for i := range content {
			if night == 0 || i == count/2 {
				content[i], _, err = repo.SaveBlob(ctx, repository.DataBlob, fmt.Appendf(nil, "%08d%08d", i, night))
				must(t, err)
			}
		}
		file := repository.Node{
			Name: "data.raw", Type: repository.NodeFile, Mode: 0o600, Links: 1, ModTime: at,
			Size: count * piece, Content: content,
		}
		top := h.folder(repo, "/", []repository.Node{h.folder(repo, "disks", []repository.Node{file})})
		must(t, repo.Flush(ctx))
		_, err := repo.SaveSnapshot(ctx, &repository.Snapshot{
			Time: at, Tree: *top.Subtree, Paths: []string{"/"}, Hostname: "web", Username: "root", Tags: []string{"drydock", "vm=web", "image:data"},
		})
		must(t, err)
	}
	h.looks("web", count*piece)
}
