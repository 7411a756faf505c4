package guest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// ext4 makes an image with the files of a folder, without mounting anything.
func ext4(t testing.TB, args []string, write func(dir string)) string {
	t.Helper()
	dir := t.TempDir()
	write(dir)
	return disktest.MakeImage(t, 4<<20, "mkfs.ext4", append([]string{"-q", "-O", "^has_journal", "-d", dir}, args...)...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rootImage makes a root filesystem with an fstab and a few mountpoints.
func rootImage(t testing.TB, fstab string) string {
	t.Helper()
	return ext4(t, []string{"-U", "00000000-0000-0000-0000-00000000000a"}, func(dir string) {
		for _, d := range []string{"etc", "m1/below", "m2", "m3", "real"} {
			must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
		}
		must(t, os.Symlink("real", filepath.Join(dir, "link")))
		must(t, os.Symlink("loop", filepath.Join(dir, "loop")))
		must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "etc/fstab"), []byte("UUID=00000000-0000-0000-0000-00000000000a / ext4\n"+fstab), 0o644))
	})
}

// others are two disks besides the root's: one with a filesystem on all of it,
// and one with two partitions, of which the second is a volume group.
func others(t *testing.T) []string {
	whole := ext4(t, []string{"-L", "a label", "-U", "00000000-0000-0000-0000-00000000000b"}, func(dir string) {
		must(t, os.MkdirAll(filepath.Join(dir, "inner"), 0o755))
	})
	parts := disktest.EmptyImage(t, 12<<20)
	disktest.Run(t, "sgdisk", "-n", "1:0:+4M", "-c", "1:data part", "-u", "1:01234567-89AB-CDEF-0123-456789ABCDEF", "-n", "2:0:0", parts)
	v := &vm{t: t}
	off, size := partitionStart(t, parts, 1)
	pvOff, pvSize := partitionStart(t, parts, 2)
	disktest.Run(t, "mkfs.ext4", "-q", "-O", "^has_journal", testmount.Loop(v.t, parts, off, size))
	pv := testmount.Loop(v.t, parts, pvOff, pvSize)
	tools := testlvm.New(t, pv)
	tools.Run("vgcreate", "-s", "64k", "my-vg", pv)
	tools.Create("-n", "lv-x", "-L", "2M", "my-vg")
	_, lvOff, lvSize := volume(t, tools, "my-vg/lv-x")
	disktest.Run(t, "mkfs.ext4", "-q", "-O", "^has_journal", testmount.Loop(v.t, parts, pvOff+lvOff, lvSize))
	return []string{whole, parts}
}

// TestSources finds volumes by all their names.
func TestSources(t *testing.T) {
	disks := others(t)
	for source, want := range map[string]string{
		"UUID=00000000-0000-0000-0000-00000000000B":                  "vdb",
		`UUID="00000000-0000-0000-0000-00000000000b"`:                "vdb",
		`LABEL=a\040label`:                                           "vdb",
		"PARTUUID=01234567-89ab-cdef-0123-456789abcdef":              "vdc-part1",
		`PARTLABEL=data\040part`:                                     "vdc-part1",
		"/dev/disk/by-uuid/00000000-0000-0000-0000-00000000000b":     "vdb",
		`/dev/disk/by-label/a\x20label`:                              "vdb",
		"/dev/disk/by-partuuid/01234567-89ab-cdef-0123-456789abcdef": "vdc-part1",
		`/dev/disk/by-partlabel/data\x20part`:                        "vdc-part1",
		"/dev/disk/by-id/dm-name-my--vg-lv--x":                       "my-vg/lv-x",
		"/dev/mapper/my--vg-lv--x":                                   "my-vg/lv-x",
		"/dev/my-vg/lv-x":                                            "my-vg/lv-x",
		"/dev/vdb":                                                   "vdb",
		"/dev/vdc1":                                                  "vdc-part1",
		"/dev/sdc1":                                                  "vdc-part1", // a guess
		"/dev/nvme1n1":                                               "vdb",       // a guess
		"/dev/vdc2":                                                  "",
		"/dev/vdd":                                                   "",
		"/dev/vdc3":                                                  "",
		"/dev/disk/by-path/pci-0000:00:04.0":                         "",
		"UUID=00000000-0000-0000-0000-00000000000c":                  "",
		"UUID=":                 "",
		"ID=x":                  "",
		"/dev/mapper/luks-root": "",
		"relative":              "",
		"/srv/image.iso":        "",
	} {
		t.Run(strings.ReplaceAll(source, "/", "_"), func(t *testing.T) {
			v := &vm{t: t, images: append([]string{rootImage(t, source+" /m1 auto\n")}, disks...)}
			l := v.layout()
			g, err := guest.Open(l, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			about := strings.Join(slices.DeleteFunc(slices.Clone(g.Info().Remarks), func(r string) bool { return !strings.Contains(r, `"/m1"`) }), "\n")
			guess := strings.HasPrefix(source, "/dev/sd") || strings.HasPrefix(source, "/dev/nvme")
			if (about != "") != (want == "" || guess) {
				t.Errorf("remark: %q", about)
			}
			if want == "" {
				if len(g.Mounts()) != 1 {
					t.Errorf("%+v", g.Mounts())
				}
				return
			}
			i, err := l.Find(want)
			if m := g.Mounts(); err != nil || len(m) != 2 || m[1].Volume != i {
				t.Errorf("%+v, want volume %d", m, i)
			}
		})
	}
}

// TestRules mounts one or two volumes in many ways.
func TestRules(t *testing.T) {
	disks := others(t)
	for name, c := range map[string]struct {
		fstab  string
		mounts []string // besides the root
		remark string   // part of one
	}{
		"depth":           {"/m1/inner /m3 none bind\n/dev/vdc1 /m1/inner ext4\nLABEL=a\\040label /m1 ext4\n", []string{"/m1", "/m1/inner", "/m3"}, ""},
		"no mountpoint":   {"/dev/vdb /gone ext4", nil, `"/gone" is not shown`},
		"file":            {"/dev/vdb /file ext4", nil, "one is a directory"},
		"symlink":         {"/dev/vdb /link ext4", []string{"/link"}, ""},
		"symlink loop":    {"/dev/vdb /loop ext4", nil, "symlinks"},
		"dots":            {"/dev/vdb /m1/../m2/. ext4", []string{"/m1/../m2/."}, ""},
		"above the root":  {"/dev/vdb /../.. ext4", nil, "it is the root"},
		"twice":           {"/dev/vdb /m1 ext4\n/dev/vdc1 /m1 ext4\n", []string{"/m1", "/m1"}, "hidden by another mount"},
		"noauto":          {"/dev/vdb /m1 ext4 noauto", nil, "on demand only"},
		"no drive":        {"/dev/sr0 /m1 auto noauto", nil, ""},
		"automount":       {"/dev/vdb /m1 ext4 noauto,x-systemd.automount", []string{"/m1"}, ""},
		"network":         {"s:/x /m1 nfs4\nt:/x /m2 fuse.sshfs\n", nil, "mounted from elsewhere"},
		"memory and swap": {"tmpfs /m1 tmpfs\n/dev/vdb none swap\n", nil, "does not mount it"},
		"other type":      {"/dev/vdb /m1 xfs", []string{"/m1"}, "calls what is at"},
		"types":           {"/dev/vdb /m1 ext2\n/dev/vdc1 /m2 xfs,ext3\n", []string{"/m1", "/m2"}, ""},
		"subdir":          {"/dev/vdb /m1 ext4 X-mount.subdir=inner", nil, "X-mount.subdir"},
		"bind of all":     {"/ /m3 none bind\n/dev/vdb /m1 ext4\n", []string{"/m3", "/m1"}, ""},
		"nested bind":     {"/dev/vdb /m1 ext4\n/m1 /m2 none bind\n/dev/vdc1 /m2/inner ext4\n", []string{"/m1", "/m2", "/m2/inner"}, ""},
		"rbind":           {"/dev/vdb /m1 ext4\n/m1 /m2 none rbind\n", []string{"/m1", "/m2"}, "not shown again"},
		"bind of nothing": {"/gone /m2 none bind", nil, `"/m2" is not shown`},
		"bind of itself":  {"/m1 /m1 none bind", []string{"/m1"}, ""},
		"relative":        {"/dev/vdb m1 ext4", nil, "not a path"},
		"no subvolumes":   {"/dev/vdb /m1 ext4 subvol=x", []string{"/m1"}, ""},
		"no lines":        {"#\n\nx\ny z\n", nil, "2 lines"},
		"not mentioned":   {"", nil, "does not mount it"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &vm{t: t, images: append([]string{rootImage(t, c.fstab)}, disks...)}
			g, err := guest.Open(v.layout(), guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var paths []string
			for _, m := range g.Mounts()[1:] {
				paths = append(paths, string(m.Path))
			}
			if !slices.Equal(paths, c.mounts) {
				t.Errorf("mounts are %q, want %q", paths, c.mounts)
			}
			if all := strings.Join(g.Info().Remarks, "\n"); !strings.Contains(all, c.remark) {
				t.Errorf("remarks are %q", all)
			}
			disktest.ReadTree(t, g)
		})
	}
}

// TestManyMounts mounts more than there is room for.
func TestManyMounts(t *testing.T) {
	var fstab strings.Builder
	for i := range 200 {
		fmt.Fprintf(&fstab, "/m2 /m1%s none bind\n", strings.Repeat("/.", i))
	}
	v := &vm{t: t, images: []string{rootImage(t, fstab.String())}}
	g, err := guest.Open(v.layout(), guest.Options{})
	if err != nil || len(g.Mounts()) != guest.MaxMounts || !strings.Contains(strings.Join(g.Info().Remarks, "\n"), "more than 128 mounts") {
		t.Fatalf("%d mounts: %v", len(g.Mounts()), err)
	}
	n, err := disk.Lookup(g, []byte("/m1"))
	if m, _ := guest.Split(n.Ino); err != nil || m != guest.MaxMounts-1 || int64(n.Ino) < 0 {
		t.Errorf("inode %#x: %v", n.Ino, err)
	}
	for _, ino := range []uint64{0, 1 << 63, 1<<64 - 1} {
		_, e1 := g.Inode(ino)
		_, e2 := g.Open(ino)
		_, e3 := g.Readlink(ino)
		_, e4 := g.Xattrs(ino)
		e5 := g.ReadDir(ino, nil)
		for _, err := range []error{e1, e2, e3, e4, e5} {
			if !errors.Is(err, disk.ErrNotExist) {
				t.Errorf("inode %#x: %v", ino, err)
			}
		}
	}
}

// TestFstabFile: whatever /etc/fstab is, the root is shown.
func TestFstabFile(t *testing.T) {
	for name, c := range map[string]struct {
		write  func(path string) error
		remark string
	}{
		"absent":    {func(string) error { return nil }, "no /etc/fstab"},
		"dangling":  {func(path string) error { return os.Symlink("/nowhere", path) }, "no /etc/fstab"},
		"loop":      {func(path string) error { return os.Symlink("fstab", path) }, "cannot be read"},
		"directory": {func(path string) error { return os.Mkdir(path, 0o755) }, "cannot be read"},
		"huge": {func(path string) error {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40)
		}, "at most"},
		"binary": {func(path string) error { return os.WriteFile(path, []byte("\x00\x1b[2J \xff \x1b]\n\n"), 0o644) }, "not a path"},
	} {
		t.Run(name, func(t *testing.T) {
			image := ext4(t, nil, func(dir string) {
				must(t, os.MkdirAll(filepath.Join(dir, "etc"), 0o755))
				must(t, os.WriteFile(filepath.Join(dir, "etc/os-release"), nil, 0o644))
				must(t, c.write(filepath.Join(dir, "etc/fstab")))
			})
			g, err := guest.Open((&vm{t: t, images: []string{image}}).layout(), guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(g.Info().Remarks, "\n")
			if !strings.Contains(all, c.remark) || strings.ContainsFunc(all, func(r rune) bool { return r < ' ' && r != '\n' || r == '\ufffd' }) {
				t.Errorf("remarks are %q", all)
			}
		})
	}
}

// TestRoot chooses among volumes.
func TestRoot(t *testing.T) {
	root, plain := rootImage(t, ""), ext4(t, nil, func(string) {})
	system := ext4(t, nil, func(dir string) {
		must(t, os.MkdirAll(filepath.Join(dir, "usr/sbin"), 0o755))
		must(t, os.Symlink("usr/sbin", filepath.Join(dir, "sbin")))
		must(t, os.WriteFile(filepath.Join(dir, "usr/sbin/init"), nil, 0o755))
	})
	stranger := ext4(t, nil, func(dir string) {
		must(t, os.MkdirAll(filepath.Join(dir, "etc"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "etc/fstab"), []byte("/dev/gone / ext4\n"), 0o644))
	})
	luks := disktest.MakeImage(t, 4<<20, "sh", "-c", `printf 'LUKS\272\276\000\001' | dd status=none conv=notrunc of="$1"`, "sh")
	for name, c := range map[string]struct {
		images []string
		named  string
		want   string // volume
		err    error
		remark string
	}{
		"one":             {[]string{plain, root}, "", "vdb", nil, "does not mount it"},
		"init":            {[]string{plain, system}, "", "vdb", nil, "no /etc/fstab"},
		"fstab over init": {[]string{system, stranger}, "", "vdb", nil, "as the root"},
		"itself":          {[]string{stranger, root}, "", "vdb", nil, ""},
		"a copy":          {[]string{root, root}, "", "", disk.ErrUnsupported, ""},
		"a copy, named":   {[]string{root, root}, "vdb", "vdb", nil, "as the root"},
		"plain, named":    {[]string{root, plain}, "vdb", "vdb", nil, "no /etc/fstab"},
		"absent":          {[]string{root}, "vdx", "", disk.ErrNotExist, ""},
		"none":            {[]string{plain}, "", "", disk.ErrNotExist, ""},
		"encrypted":       {[]string{luks}, "", "", disk.ErrUnsupported, ""},
		"beside a LUKS":   {[]string{luks, root}, "", "vdb", nil, "LUKS"},
		"LUKS, named":     {[]string{luks, root}, "vda", "", disk.ErrUnsupported, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := (&vm{t: t, images: c.images}).layout()
			g, err := guest.Open(l, guest.Options{Root: c.named})
			if !errors.Is(err, c.err) || err != nil {
				if c.err == nil || !errors.Is(err, c.err) {
					t.Errorf("%v, want %v", err, c.err)
				}
				return
			}
			if got := l.Volumes()[g.Mounts()[0].Volume].Name; got != c.want || !strings.Contains(strings.Join(g.Info().Remarks, "\n"), c.remark) {
				t.Errorf("the root is %s, remarks are %q", got, g.Info().Remarks)
			}
		})
	}
}

// layoutOf reads one disk.
func layoutOf(t testing.TB, d disk.Sparse) *layout.Layout {
	t.Helper()
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: d}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}
