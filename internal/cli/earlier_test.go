package cli

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// keep names the version whose repository is to be kept as test data. Each release has
// one: go test ./internal/cli -run TestEarlierRepositories -keep v1.2.3, as root.
var keep = flag.String("keep", "", "write a repository of this version to testdata/repositories")

const earlierConfig = `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repo, password_file: %[1]s/key, ecc: 5}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      root: {path: %[1]s/root.raw, format: raw, mount: /srv}
      store: {path: %[1]s/store.raw, format: raw, backup: image, free_space: keep}
`

func newEarlier(t *testing.T) (w *world, base string) {
	t.Helper()
	w = newWorld(t)
	base = filepath.Dir(w.config)
	write(t, w.config, fmt.Sprintf(earlierConfig, base))
	return w, base
}

// TestEarlierRepositories restores what earlier versions wrote: two backups of files, of
// an image with parity, and of what the VM is. Beside each repository lies what the
// kernel said of the files, and the digest of the image, when it was made.
func TestEarlierRepositories(t *testing.T) {
	if *keep != "" {
		keepRepository(t, filepath.Join("testdata", "repositories", *keep+".tar.gz"))
	}
	all, err := filepath.Glob(filepath.Join("testdata", "repositories", "*.tar.gz"))
	if err != nil || len(all) == 0 {
		t.Fatalf("there are no repositories: %v", err)
	}
	for _, archive := range all {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".tar.gz"), func(t *testing.T) {
			w, base := newEarlier(t)
			if err := os.RemoveAll(w.repo); err != nil {
				t.Fatal(err)
			}
			w.tool("", "tar", "-xzf", archive, "-C", base)
			w.restic("check", "--read-data")
			w.run(0, "verify", "--mode", "full")
			for i, id := range ids(t, w) {
				dir, image := filepath.Join(t.TempDir(), "files"), filepath.Join(t.TempDir(), "store.raw")
				w.run(0, "restore", "web/root@"+id, "--to", dir, "--setuid", "--devices")
				treetest.Compare(t, treetest.List(t, filepath.Join(dir, "srv")), strings.Split(read(t, filepath.Join(base, fmt.Sprintf("files.%d", i))), "\n"))
				w.run(0, "restore", "web/store@"+id, "--to", image)
				if got, want := digest(w, image), read(t, filepath.Join(base, fmt.Sprintf("image.%d", i))); got != want {
					t.Errorf("backup %s: image %s, want %s", id, got, want)
				}
			}
		})
	}
}

// ids returns the IDs of the two backups, the oldest first.
func ids(t *testing.T, w *world) []string {
	t.Helper()
	var all []struct {
		ID   string    `json:"id"`
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal([]byte(w.restic("snapshots", "--json")), &all); err != nil || len(all) != 2 {
		t.Fatalf("backups %v, %v, want two", all, err)
	}
	if all[1].Time.Before(all[0].Time) {
		return []string{all[1].ID, all[0].ID}
	}
	return []string{all[0].ID, all[1].ID}
}

func digest(w *world, path string) string {
	sum, _, _ := strings.Cut(w.tool("", "sha256sum", path), " ")
	return sum
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// keepRepository has this version write a repository.
func keepRepository(t *testing.T, archive string) {
	t.Helper()
	w, base := newEarlier(t)
	for i := range 2 {
		for name, size := range map[string]string{"root": "64M", "store": "8M"} {
			image := filepath.Join(base, name+".raw")
			if i == 0 {
				w.tool("", "truncate", "-s", size, image)
				w.tool("", "mke2fs", "-q", "-t", "ext4", image)
			}
			dir, unmount := testmount.Image(t, image, "")
			switch {
			case name == "store":
				write(t, filepath.Join(dir, "text"), strings.Repeat(fmt.Sprintln("the store at", i), 1000))
			case i == 0:
				treetest.MakeIn(t, dir, treetest.Without{})
				w.tool("", "find", dir, "-type", "f", "-size", "+20k", "-links", "1", "-delete") // noise
			default:
				write(t, filepath.Join(dir, "etc/new"), "since the first backup\n")
			}
			if name == "root" {
				write(t, filepath.Join(base, fmt.Sprintf("files.%d", i)), strings.Join(treetest.List(t, dir), "\n"))
			}
			unmount()
		}
		write(t, filepath.Join(base, fmt.Sprintf("image.%d", i)), digest(w, filepath.Join(base, "store.raw")))
		w.backupDisks()
	}
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		t.Fatal(err)
	}
	w.tool("", "tar", "-czf", archive, "-C", base, "repo", "files.0", "files.1", "image.0", "image.1")
}
