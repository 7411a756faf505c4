package main_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/testguest"
)

const millionConfig = `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repository}
vms:
  web: {driver: qemu, command: [qemu-system-x86_64], disks: {data: {path: %[2]s, format: raw, mount: /}}}
`

// maxMillion is what a round over a million files may take of memory, in MiB, and maxLook
// any look at backups of them: 400 and 300 MB.
const maxMillion, maxLook = 381, 286

// million stores two backups of a million files in a thousand folders, each file a
// piece of its own. In the second, some files of each folder are others.
func (h *host) million() {
	t := h.t
	t.Helper()
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, millionConfig, h.dir, h.path("web.raw")), 0o600))
	must(t, os.MkdirAll(h.path("state"), 0o700))
	must(t, os.WriteFile(h.path("state", "repository.key"), []byte("secret\n"), 0o600))
	ctx := t.Context()
	repo, err := repository.Create(ctx, local.New(h.path("repository")), []byte("secret"), repository.CreateOptions{})
	must(t, err)
	for night := range 2 {
		at := time.Date(2026, 11, 1+night, 3, 0, 0, 0, time.UTC)
		var top []repository.Node
		for d := range 1000 {
			var files []repository.Node
			for f := range 1000 {
				version := 0
				if f%100 == 7 {
					version = night
				}
				text := fmt.Appendf(nil, "file %d of folder %d, version %d\n", f, d, version)
				id, _, err := repo.SaveBlob(ctx, repository.DataBlob, text)
				must(t, err)
				files = append(files, repository.Node{
					Name: fmt.Sprintf("a file with a longer name %04d", f), Type: repository.NodeFile, Mode: 0o644, Links: 1, Inode: uint64(d*1000 + f + 10),
					ModTime: at.AddDate(0, 0, version-night), Size: uint64(len(text)), Content: []repository.ID{id},
				})
			}
			top = append(top, h.folder(repo, fmt.Sprintf("folder %04d", d), files))
		}
		root := h.folder(repo, "/", top)
		must(t, repo.Flush(ctx))
		_, err := repo.SaveSnapshot(ctx, &repository.Snapshot{
			Time: at, Tree: *root.Subtree, Paths: []string{"/"}, Hostname: "web", Username: "root", Tags: []string{"drydock", "vm=web", "disk:data=/"},
		})
		must(t, err)
	}
}

func (h *host) folder(repo *repository.Repository, name string, nodes []repository.Node) repository.Node {
	h.t.Helper()
	data, err := repository.EncodeTree(nodes)
	must(h.t, err)
	id, _, err := repo.SaveTree(h.t.Context(), data)
	must(h.t, err)
	return repository.Node{Name: name, Type: repository.NodeDir, Mode: fs.ModeDir | 0o755, Subtree: &id, ModTime: time.Unix(1e9, 0)}
}

// peak runs drydock, and returns the most memory that it had together with the processes
// that it began, in MiB, and how long it took.
func (h *host) peak(args ...string) (mib int, took time.Duration, out string) {
	h.t.Helper()
	var text strings.Builder
	c := h.command(h.t.Context(), args...)
	c.Stdout, c.Stderr = &text, os.Stderr
	bytes, took := memory(h.t, c)
	return int(bytes >> 20), took, text.String()
}

// TestCompareMillionFiles measures what it takes to compare, to search, to pack and to restore
// backups of a million files.
func TestCompareMillionFiles(t *testing.T) {
	benchdisk.Wanted(t)
	h := newHost(t)
	h.million()
	for _, c := range []struct {
		args []string
		want string // in what it says
	}{
		{[]string{"diff", "web@2026-11-01", "web@latest"}, "changed: 10000 files"},
		{[]string{"find", "a file with a longer name 0007", "web"}, "/folder 0999/a file with a longer name 0007  in "},
		{[]string{"find", "*", "web@latest", "--json"}, "name 0999"},
		{[]string{"restore", "web@latest", "--to", h.path("back")}, "restored 1000000 files"},
	} {
		mib, took, out := h.peak(c.args...)
		t.Logf("%q: %d MiB, %s", c.args, mib, took.Round(100*time.Millisecond))
		if !strings.Contains(out, c.want) {
			t.Errorf("%q does not say %q: %.400s", c.args, c.want, out)
		}
		if mib > maxLook {
			t.Errorf("%q took %d MiB, more than %d", c.args, mib, maxLook)
		}
	}
}

// TestCompareMillionRound measures what rounds take over a guest that runs on a disk with
// a million small files: the first, and one after the guest has changed some.
func TestCompareMillionRound(t *testing.T) {
	benchdisk.Wanted(t)
	h := newHost(t)
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1"})
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", benchdisk.Million(t, "ext4"), g.DataPath)
	h.vm(g)
	h.write()
	h.run(0, "start")
	ctx := t.Context()
	for night, files := range []int{1_000_000, 1000} { // new ones, at least
		if night > 0 {
			must(t, g.Fill(ctx, "/var/new", 1, files, 2000))
		}
		mib, took, out := h.peak("run", "--json")
		var r report
		must(t, json.Unmarshal([]byte(out), &r))
		b := r.VMs[0].Backup
		if b == nil || b.FilesNew < int64(files) || r.Outcome != "done" {
			t.Fatalf("night %d: %+v", night, r)
		}
		t.Logf("night %d: %d MiB, %s; %d new files, %d as they were; %s of downtime",
			night, mib, took.Round(100*time.Millisecond), b.FilesNew, b.FilesUnchanged, r.VMs[0].Downtime.Round(100*time.Millisecond))
		if mib > maxMillion {
			t.Errorf("night %d took %d MiB, more than %d", night, mib, maxMillion)
		}
		healthy(t, g)
	}
}

// TestCompareMillionOff measures what rounds take over a guest that is off, by filesystem:
// the first, and one in which nothing has changed.
func TestCompareMillionOff(t *testing.T) {
	benchdisk.Wanted(t)
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			h := newHost(t)
			must(t, os.WriteFile(h.config, fmt.Appendf(nil, millionConfig, h.dir, benchdisk.Million(t, fstype)), 0o600))
			for _, want := range []string{" 1000000/0/0 ", " 0/0/1000000 "} { // files new, changed, the same
				mib, took, out := h.peak("run")
				t.Logf("%s: %d MiB, %s", strings.TrimSpace(want), mib, took.Round(100*time.Millisecond))
				if !strings.Contains(out, want) {
					t.Errorf("a round does not say %q: %s", want, out)
				}
				if mib > maxMillion {
					t.Errorf("a round took %d MiB, more than %d", mib, maxMillion)
				}
			}
		})
	}
}
