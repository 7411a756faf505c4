package iso9660_test

import (
	"os/exec"
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// The tests of this file compare with the tree that genisoimage or xorrisofs was given,
// and with isoinfo: the kernel of these machines has no ISO 9660.

// TestRockRidge compares all that Rock Ridge keeps with what was written.
func TestRockRidge(t *testing.T) {
	for name, args := range map[string][]string{
		"genisoimage":            {"-R"},
		"genisoimage Joliet":     {"-R", "-J", "-V", "a label"},
		"genisoimage not moved":  {"-R", "-D"},
		"genisoimage level 3":    {"-R", "-iso-level", "3", "-V", "LEVEL 3"},
		"genisoimage hidden":     {"-R", "-hide-rr-moved"},
		"xorrisofs":              {"-R"},
		"xorrisofs Joliet":       {"-R", "-J", "-V", "a label"},
		"xorrisofs not moved":    {"-R", "-D"},
		"xorrisofs by hardlinks": {"-R", "--hardlinks"},
		"xorrisofs attributes":   {"-R", "--xattr", "--acl"},
	} {
		t.Run(name, func(t *testing.T) {
			tool, _, _ := strings.Cut(name, " ")
			dir := everything().write(t)
			addPosix(t, tool, dir)
			image := makeImage(t, tool, dir, args...)
			want, got := disktest.KernelTree(t, dir), disktest.ReadTree(t, openFilesystem(t, disktest.OpenImage(t, image)))
			for _, moved := range []string{"/rr_moved", "/.rr_moved"} { // where deep directories were put
				delete(got, moved)
			}
			disktest.CompareTrees(t, comparable(want), comparable(got))
			compareBlkid(t, image)
		})
	}
}

// comparable forgets what the format does not keep, and what the tools decide.
func comparable(all disktest.Tree) disktest.Tree {
	out := make(disktest.Tree)
	for p, n := range all {
		times := strings.Fields(n.Times)
		n.Times, _, _ = strings.Cut(times[1], ".") // of modification, in seconds
		n.Ino, n.Data, n.Xattrs = 0, "", ""
		if disktest.IsType(n.Mode, unix.S_IFDIR) {
			n.Size, n.Links = 0, 0 // it counts those that it moved elsewhere
		} else {
			n.Links = 1
		}
		if p == "" {
			n.Times, n.Mode, n.UID, n.GID = "", 0, 0, 0
		}
		out[p] = n
	}
	return out
}

// TestJoliet compares names and content.
func TestJoliet(t *testing.T) {
	s := everything()
	delete(s, "a/b/c/d/e/f/g/h/i/j/k/deep")
	delete(s, "a/b/c/d/e/f/g/h/i/other")
	s["a/b/c/d/e/f/deep"] = []byte("as deep as it can be")
	s["names/"+strings.Repeat("ü", 60)+".txt"] = []byte("long")
	compareContent(t, s, makeImage(t, "genisoimage", s.write(t), "-J", "-joliet-long"), func(name string) string { return name })
}

// TestPlain compares an image without extensions: names are as Linux shows them.
func TestPlain(t *testing.T) {
	s := tree{"README.TXT": []byte("upper"), "LOWER": []byte("no extension"), "DIR/SUB/FILE.A": []byte("deep"), "EMPTY": nil}
	for i := range 100 {
		s["MANY/"+string(rune('A'+i/26))+string(rune('A'+i%26))] = []byte{byte(i)}
	}
	for _, args := range [][]string{{}, {"-iso-level", "3"}, {"-no-pad"}, {"-omit-version-number"}, {"-omit-period"}} {
		compareContent(t, s, makeImage(t, "genisoimage", s.write(t), args...), strings.ToLower)
	}
}

// compareContent compares an image with a tree whose names it has changed.
func compareContent(t *testing.T, s tree, image string, named func(string) string) {
	t.Helper()
	compareBlkid(t, image)
	got := disktest.ReadTree(t, openFilesystem(t, disktest.OpenImage(t, image)))
	want := disktest.KernelTree(t, s.write(t))
	for p, n := range want {
		g, ok := got[named(p)]
		if !ok || g.Content != n.Content || g.Mode&unix.S_IFMT != n.Mode&unix.S_IFMT || g.Mode&0o777 != 0o555 || g.UID != 0 {
			t.Errorf("%q is %+v, want %+v", p, g, n)
		}
	}
	if len(want) != len(got) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
}

// TestIsoinfo compares the names and sizes of each of an image's trees with those that
// isoinfo lists.
func TestIsoinfo(t *testing.T) {
	s := tree{"README.TXT": []byte("upper"), "Mixed Name": []byte("mixed"), "dir/sub/file.a": []byte("deep"), "other": []byte("o")}
	for _, v := range []struct{ args, show []string }{{[]string{"-R"}, []string{"-R"}}, {[]string{"-J"}, []string{"-J"}}} {
		image := makeImage(t, "genisoimage", s.write(t), v.args...)
		out, err := exec.Command("isoinfo", append([]string{"-f", "-i", image}, v.show...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Fields(strings.ReplaceAll(string(out), "Mixed Name", "Mixed_Name"))
		got := disktest.ReadTree(t, openFilesystem(t, disktest.OpenImage(t, image)))
		if len(want) != len(got)-1 {
			t.Errorf("%d files, and isoinfo lists %q", len(got), want)
		}
		for _, p := range want {
			if _, ok := got[strings.ReplaceAll(path.Clean(p), "Mixed_Name", "Mixed Name")]; !ok {
				t.Errorf("isoinfo lists %q", p)
			}
		}
	}
}

// compareBlkid compares the label of an image with what blkid finds. (That it finds the
// same date is a test of package layout.)
func compareBlkid(t *testing.T, image string) {
	t.Helper()
	out, err := exec.Command("blkid", "-p", "-o", "value", "-s", "LABEL", image).Output()
	if err != nil {
		t.Fatal(err)
	}
	info := openFilesystem(t, disktest.OpenImage(t, image)).Info()
	if string(info.Label) != strings.TrimSuffix(string(out), "\n") || info.Type != "iso9660" || info.BlockSize != 2048 {
		t.Errorf("%+v, and blkid finds the label %q", info, out)
	}
}
