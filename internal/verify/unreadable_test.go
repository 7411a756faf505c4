package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drydock-vm/drydock/internal/testmount"
	"github.com/drydock-vm/drydock/internal/verify"
)

// A disk that says itself that it cannot read a sector: btrfs, whose checksums find
// one that has rotted, gives EIO for it as a bad disk does.
func TestUnreadableSector(t *testing.T) {
	p, b := protected(t)
	image, mnt := filepath.Join(t.TempDir(), "image"), t.TempDir() // always mounted there
	tool(t, "truncate", "-s", "160M", image)
	tool(t, "mkfs.btrfs", "-q", "-d", "single", image)
	device := testmount.Loop(t, image, 0, 0)
	unmount := testmount.At(t, device, mnt)
	on := place{filepath.Join(mnt, "repo"), p.keyFile}
	check(t, os.CopyFS(on.dir, os.DirFS(p.dir)))
	pack, content := "", []byte(nil)
	for _, path := range on.files(t, "data") {
		if d, err := os.ReadFile(path); err == nil && len(d) > len(content) {
			pack, content = path, d
		}
	}
	unmount()
	testmount.Detach(t, device)
	for _, off := range []int{64 << 10, 1 << 20} {
		sector := content[off : off+4096]
		edit(t, image, func(d []byte) []byte {
			at := bytes.Index(d, sector)
			if at < 0 {
				t.Fatal("the pack is not on the disk")
			}
			d[at+100] ^= 1
			return d
		})
	}
	testmount.At(t, testmount.Loop(t, image, 0, 0), mnt)
	if _, err := os.ReadFile(pack); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the sector can be read: %v", err)
	}

	r := on.mended(t, verify.Options{Mode: verify.Full})
	said := fmt.Sprint(r.Damage)
	if r.DamageTotal != 1 || !strings.Contains(said, "the disk cannot read it") || !strings.Contains(said, "can be repaired") {
		t.Errorf("damage: %v", said)
	}
	if named := b.files.named(r.Backups[0]); len(named) != 1 || named[0] != "big" {
		t.Errorf("damaged are %q", named)
	}
	if r := on.mended(t, verify.Options{Mode: verify.Full, Repair: true}); !r.Good() || len(r.Repaired) != 1 {
		t.Errorf("repaired %d: %v", len(r.Repaired), r.Damage)
	}
	if got, err := os.ReadFile(pack); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the pack after its repair: %v", err)
	}
	on.restored(t, b)
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}
