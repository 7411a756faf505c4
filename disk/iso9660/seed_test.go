package iso9660_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/iso9660"
)

var update = flag.Bool("update", false, "make the images in testdata anew")

// seeds are the small images in testdata from which damage and fuzzing start.
var seeds = []struct {
	name string
	args []string
}{
	{"rockridge", []string{"-R", "-J"}},
	{"joliet", []string{"-J"}},
	{"plain", nil},
}

// seedTree is what a seed holds. The names come through each of the trees.
func seedTree() tree {
	s := tree{
		"readme.txt": []byte("text"), "dir/sub/deep": []byte("deep"), "empty": {}, "pieces.a": bytes.Repeat([]byte("a"), 4096),
		"pieces.b": bytes.Repeat([]byte("b"), 2500),
	}
	for i := range 50 {
		s[fmt.Sprintf("dir/many/file.%d", i)] = []byte(fmt.Sprint(i))
	}
	return s
}

func writeSeed(t *testing.T, name string, args []string) {
	s := seedTree()
	if name == "rockridge" {
		s["1/2/3/4/5/6/7/8/9/moved"] = []byte("moved")
	}
	dir := s.write(t)
	if name == "rockridge" {
		at := dir + "/" + strings.Repeat("n", 200)
		if err := os.Symlink("/"+strings.Repeat("../component/", 12)+"end", at); err != nil {
			t.Fatal(err)
		}
	}
	disktest.SaveSeed(t, name, makeImage(t, "genisoimage", dir, append(args, "-no-pad", "-V", "SEED")...))
}

// TestSeeds fails if a seed is missing, does not load, or does not hold what the
// tests of damage are about.
func TestSeeds(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			if *update {
				writeSeed(t, s.name, s.args)
			}
			fs := openFilesystem(t, disktest.LoadSeed(t, s.name))
			if info := fs.Info(); string(info.Label) != "SEED" || info.UUID == [16]byte{} || len(info.Remarks) != 0 {
				t.Errorf("%+v", info)
			}
			all := disktest.ReadTree(t, fs)
			for path, content := range seedTree() {
				n, ok := all["/"+path]
				if !ok || !bytes.Equal(readAll(t, fs, n.Ino), content) {
					t.Errorf("%s: %+v", path, n)
				}
			}
			if s.name != "rockridge" {
				return
			}
			if n := all["/"+strings.Repeat("n", 200)]; len(n.Target) != 1+12*13+3 {
				t.Errorf("the symlink leads to %q", n.Target)
			}
			if _, ok := all["/1/2/3/4/5/6/7/8/9/moved"]; !ok {
				t.Error("the directory that was moved is not where it was")
			}
		})
	}
}

// readAll returns the content of a file.
func readAll(t testing.TB, fs disk.Filesystem, ino uint64) []byte {
	t.Helper()
	f, err := fs.Open(ino)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, f.Size())
	if n, err := f.ReadAt(b, 0); n != len(b) {
		t.Fatalf("inode %d: %d of %d bytes: %v", ino, n, len(b), err)
	}
	return b
}

// editor changes a seed.
type editor struct {
	t   testing.TB
	raw []byte
}

func edit(t testing.TB, seed string) *editor {
	t.Helper()
	m := disktest.LoadSeed(t, seed)
	e := &editor{t: t, raw: make([]byte, m.Length)}
	if _, err := m.ReadAt(e.raw, 0); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *editor) image() disktest.Mem { return e.raw }

func (e *editor) open() *iso9660.Filesystem {
	e.t.Helper()
	return openFilesystem(e.t, e.image())
}

// record returns the directory record of a path.
func (e *editor) record(path string) []byte {
	e.t.Helper()
	ino := disktest.Lookup(e.t, e.open(), path)
	return e.raw[ino:][:e.raw[ino]]
}

// entry returns the first system use entry of a record that has the signature, in its
// own area or in the one that continues it.
func (e *editor) entry(record []byte, signature string) []byte {
	e.t.Helper()
	use := record[(33+int(record[32])+1)&^1:]
	for range 3 {
		var next []byte
		for len(use) >= 4 && use[0] != 0 {
			switch string(use[:2]) {
			case signature:
				return use[:use[2]]
			case "CE":
				le := binary.LittleEndian
				at := le.Uint32(use[4:])*2048 + le.Uint32(use[12:])
				next = e.raw[at:][:le.Uint32(use[20:])]
			}
			use = use[use[2]:]
		}
		use = next
	}
	e.t.Fatalf("no entry %s", signature)
	return nil
}

// setBlock sets where the content of a record begins, and setSize how large it is.
func setBlock(record []byte, block uint32) { binary.LittleEndian.PutUint32(record[2:], block) }

func block(record []byte) uint32 { return binary.LittleEndian.Uint32(record[2:]) }

func setSize(record []byte, size uint32) { binary.LittleEndian.PutUint32(record[10:], size) }
