package definition_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/testrepo"
	"github.com/drydock-vm/drydock/internal/restore"
)

// web is a definition with a bit of everything.
func web() definition.Definition {
	return definition.Definition{
		VM: "web", Driver: "systemd", Unit: "web.service", Command: []string{"qemu-system-x86_64", "-m", "192"},
		Disks: []definition.Disk{
			{Name: "data", Path: "/srv/web-data.qcow2", Format: "qcow2", Size: 1 << 30, ClusterSize: 65536, Owner: &definition.Owner{Mode: 0o600, UID: 64055}, Backup: "files", Mount: "/var"},
			{Name: "root", Path: "/srv/web-root.raw", Format: "raw", Size: 1 << 28, Backup: "off", Image: "web",
				Release: &definition.Release{Image: "web", Version: "v1", Size: 1 << 28, SHA256: strings.Repeat("0a", 32)}},
		},
	}
}

// night stores a definition as a backup does, and loads it again.
func night(t *testing.T, r testrepo.Repo, d definition.Definition, files []definition.HostFile) (*definition.Definition, *restore.Tree, *backup.Report) {
	t.Helper()
	ctx := t.Context()
	written := time.Date(2026, 11, 1, 2, 0, 0, 0, time.UTC)
	rep, err := backup.Run(ctx, r.Repository, nil, backup.Options{
		VM: "web", Time: time.Now(),
		Objects: func(ctx context.Context, parent *repository.Snapshot) ([]backup.Object, error) {
			return definition.Save(ctx, r.Repository, parent, &d, files, []byte("vms: {}\n"), written)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.LoadSnapshot(ctx, rep.ID)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := restore.OpenTree(ctx, r.Repository, s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := definition.Load(tree, s)
	if err != nil {
		t.Fatal(err)
	}
	return got, tree, rep
}

// TestRoundTrip: what goes in comes out, with the files and their owners, drydock's
// own reader and the real restic see the same, and a night without a change stores
// nothing.
func TestRoundTrip(t *testing.T) {
	r := testrepo.New(t)
	dir := t.TempDir()
	unit, drop, big := filepath.Join(dir, "web.service"), filepath.Join(dir, "10 ü.conf"), filepath.Join(dir, "initrd")
	content := map[string][]byte{unit: []byte("[Service]\n"), drop: nil, big: bytes.Repeat([]byte("initrd "), 1<<20)}
	for path, text := range content {
		if err := os.WriteFile(path, text, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(unit, 0, 70_000); err != nil {
		t.Fatal(err)
	}
	files := []definition.HostFile{
		{Path: unit, Role: definition.RoleUnit}, {Path: drop, Role: definition.RoleDropIn}, {Path: big, Role: definition.RoleInitrd},
		{Path: unit, Role: definition.RoleUnit}, {Path: dir, Role: definition.RoleKernel}, {Path: dir + "/none", Role: definition.RoleKernel}, {Path: "vmlinuz", Role: definition.RoleKernel},
	}
	got, tree, first := night(t, r, web(), files)
	want := web()
	want.Version = definition.Version
	want.Files, want.Missing = got.Files, got.Missing
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("%+v became %+v", want, *got)
	}
	if len(got.Files) != len(content) || len(got.Missing) != 3 {
		t.Fatalf("files %+v, missing %q", got.Files, got.Missing)
	}
	for i := range got.Files {
		f := &got.Files[i]
		in, err := definition.Open(tree, f)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(in); err != nil || !bytes.Equal(text, content[f.Path]) || f.Mode != 0o640 {
			t.Errorf("%+v: %d bytes, %v", f, len(text), err)
		}
		if f.Path == unit && f.GID != 70_000 {
			t.Errorf("the group of %s is %d", f.Path, f.GID)
		}
	}
	if text, err := definition.LoadConfig(tree); err != nil || string(text) != "vms: {}\n" {
		t.Errorf("the configuration is %q, %v", text, err)
	}
	to := t.TempDir()
	r.Restic(t, "restore", "latest", "--target", to)
	if text, err := os.ReadFile(filepath.Join(to, ".drydock/files", big)); err != nil || !bytes.Equal(text, content[big]) {
		t.Errorf("restic restores %d bytes, %v", len(text), err)
	}
	if _, _, again := night(t, r, web(), files); again.Tree != first.Tree {
		t.Error("a night without a change made another tree")
	}
}

// TestUnchanged: a file is read again when anything says that it has changed, and only
// then, as the kernel counts what is read.
func TestUnchanged(t *testing.T) {
	r := testrepo.New(t)
	path := filepath.Join(t.TempDir(), "vmlinuz")
	files := []definition.HostFile{{Path: path, Role: definition.RoleKernel}}
	content := func() string {
		t.Helper()
		d, tree, _ := night(t, r, web(), files)
		in, err := definition.Open(tree, &d.Files[0])
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if sum := sha256.Sum256(text); err != nil || hex.EncodeToString(sum[:]) != d.Files[0].SHA256 {
			t.Errorf("%q does not have its digest, %v", text, err)
		}
		return string(text)
	}
	at := time.Date(2026, 11, 1, 2, 0, 0, 0, time.UTC)
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	if got := content(); got != "first" {
		t.Errorf("%q", got)
	}
	// The same size, and the time set back: the time of change tells.
	write("other")
	if got := content(); got != "other" {
		t.Errorf("a file whose time was set back is %q", got)
	}
	large := strings.Repeat("a large kernel ", 1<<20)
	write(large)
	if got := content(); got != large {
		t.Errorf("%d bytes came back", len(got))
	}
	reads := fileReads(t)
	night(t, r, web(), files)
	if n := fileReads(t) - reads; n > int64(len(large))/2 {
		t.Errorf("%d bytes were read in a night without a change", n)
	}
}

// fileReads is how many bytes this process has read.
func fileReads(t *testing.T) (n int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNone: what a guest has in the folder is no definition.
func TestNone(t *testing.T) {
	r := testrepo.New(t)
	_, tree, rep := night(t, r, web(), nil)
	s, err := r.LoadSnapshot(t.Context(), rep.ID)
	if err != nil {
		t.Fatal(err)
	}
	s.Tags = []string{"drydock", "vm=web"}
	if _, err := definition.Load(tree, s); !errors.Is(err, definition.ErrNone) {
		t.Errorf("without the tag: %v", err)
	}
	s.Tags, s.Hostname = []string{definition.Tag}, "other"
	if _, err := definition.Load(tree, s); !errors.Is(err, definition.ErrInvalid) {
		t.Errorf("of another VM: %v", err)
	}
}

// TestSaveTells: what a restore would refuse is said when there is time to change it.
func TestSaveTells(t *testing.T) {
	d := web()
	d.Disks[0].Size = 20 << 40
	r := testrepo.New(t)
	for _, c := range []struct {
		d      definition.Definition
		config int
		want   string
	}{{d, 10, "disk data"}, {web(), 1 << 20, "1048576 bytes"}} {
		_, err := definition.Save(t.Context(), r.Repository, nil, &c.d, nil, make([]byte, c.config), time.Now())
		if err != nil || len(c.d.Missing) != 1 || !strings.Contains(c.d.Missing[0], c.want) {
			t.Errorf("%q, %v", c.d.Missing, err)
		}
	}
}

// TestParseMemory: three bytes of a stranger's do not become a disk of 150.
func TestParseMemory(t *testing.T) {
	for _, text := range []string{
		`{"version":1,"vm":"web","disks":[{}` + strings.Repeat(",{}", 1<<20) + `]}`,
		`{"version":1,"vm":"web","disks":[{}` + strings.Repeat(",{}", 1<<20) + `],"disks":[]}`,
		`{"version":1,"vm":"web","FILES":[{}` + strings.Repeat(",{}", 1<<20) + `]}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := definition.Parse([]byte(text))
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, definition.ErrInvalid) || used > 8<<20 {
			t.Errorf("%.40s…: %d MB, %v", text, used>>20, err)
		}
	}
}

// TestParse refuses what drydock does not write. Each is a change of a good one.
func TestParse(t *testing.T) {
	disk := func(d *definition.Definition) *definition.Disk { return &d.Disks[1] }
	for name, change := range map[string]func(*definition.Definition){
		"no version":            func(d *definition.Definition) { d.Version = 0 },
		"a VM with a slash":     func(d *definition.Definition) { d.VM = "../web" },
		"a disk with a dot":     func(d *definition.Definition) { disk(d).Name = "a.raw" },
		"a relative path":       func(d *definition.Definition) { disk(d).Path = "disk.raw" },
		"a path upwards":        func(d *definition.Definition) { disk(d).Path = "/srv/../etc/shadow" },
		"a control sequence":    func(d *definition.Definition) { disk(d).Path = "/srv/\x1b[31m" },
		"two of one name":       func(d *definition.Definition) { disk(d).Name = "data" },
		"two at one path":       func(d *definition.Definition) { disk(d).Path = d.Disks[0].Path },
		"a file on a disk":      func(d *definition.Definition) { d.Files[0].Path = d.Disks[0].Path },
		"another format":        func(d *definition.Definition) { disk(d).Format = "vmdk" },
		"a negative size":       func(d *definition.Definition) { disk(d).Size = -1 },
		"a huge size":           func(d *definition.Definition) { disk(d).Size = 1 << 50 },
		"odd clusters":          func(d *definition.Definition) { disk(d).ClusterSize = 65537 },
		"a mount upwards":       func(d *definition.Definition) { disk(d).Mount = "/.." },
		"an image upwards":      func(d *definition.Definition) { disk(d).Image = ".." },
		"a version upwards":     func(d *definition.Definition) { disk(d).Release.Version = "../v1" },
		"a short digest":        func(d *definition.Definition) { disk(d).Release.SHA256 = "0a" },
		"a role with an escape": func(d *definition.Definition) { d.Files[0].Role = "unit\x1b[31m" },
		"too many words":        func(d *definition.Definition) { d.Command = make([]string, 10_001) },
		"a setuid file":         func(d *definition.Definition) { d.Files[0].Mode = 0o4755 },
		"a huge file":           func(d *definition.Definition) { d.Files[0].Size = definition.MaxFile + 1 },
		"small clusters":        func(d *definition.Definition) { disk(d).ClusterSize = 256 },
		"pieces with a gap": func(d *definition.Definition) {
			disk(d).Pieces = []definition.Piece{{Length: 512}, {Offset: 1024, At: 512, Length: 512}}
		},
		"pieces in one place": func(d *definition.Definition) {
			disk(d).Pieces = []definition.Piece{{At: 1024, Length: 512}, {Offset: 512, Length: 512}, {Offset: 1024, At: 511, Length: 512}}
		},
	} {
		d := good()
		change(&d)
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := definition.Parse(text); !errors.Is(err, definition.ErrInvalid) || strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%s: %v", name, err)
		}
	}
	later := good()
	later.Version = 2
	text, err := json.Marshal(later)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := definition.Parse(text); !errors.Is(err, definition.ErrNewer) {
		t.Errorf("of a later version: %v", err)
	}
	pieces := good()
	disk(&pieces).Pieces = []definition.Piece{{Offset: 512, At: 1024, Length: 512}, {Offset: 1024, Length: 512}, {Offset: 1536, At: 512, Length: 512}}
	if text, err = json.Marshal(pieces); err != nil {
		t.Fatal(err)
	}
	if _, err := definition.Parse(text); err != nil {
		t.Errorf("with pieces side by side: %v", err)
	}
	if _, err := definition.Parse([]byte(`{"version":1,"vm":"web","later":[1]}`)); err != nil {
		t.Errorf("with a key that nobody knows: %v", err)
	}
}

func good() definition.Definition {
	d := web()
	d.Version = definition.Version
	d.Files = []definition.File{{Path: "/etc/systemd/system/web.service", Role: definition.RoleUnit, Owner: definition.Owner{Mode: 0o644}, Size: 10, SHA256: strings.Repeat("0b", 32)}}
	return d
}

// FuzzParse: whatever is accepted is within the limits, and is accepted again when it
// is written.
func FuzzParse(f *testing.F) {
	text, err := json.Marshal(good())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"vm":"a","disks":[{"name":"b","path":"/c","format":"raw"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := definition.Parse(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := definition.Parse(again); err != nil {
			t.Errorf("what %q became is refused: %v", text, err)
		}
		for _, disk := range d.Disks {
			if !filepath.IsAbs(disk.Path) || strings.Contains(disk.Path, "..") && filepath.Clean(disk.Path) != disk.Path {
				t.Errorf("path %q", disk.Path)
			}
		}
	})
}

// TestCommandFiles finds what a QEMU needs beside its disks.
func TestCommandFiles(t *testing.T) {
	for command, want := range map[string]string{
		"qemu -m 192": "[]",
		"qemu -kernel /boot/vmlinuz -append kernel --initrd /boot/initrd":                                                         "[{/boot/vmlinuz kernel} {/boot/initrd initrd}]",
		"qemu -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/CODE.fd -drive if=pflash,format=raw,file=/srv/a,,b.fd": "[{/srv/a,b.fd firmware}]",
		"qemu -drive file=/srv/disk.raw,if=virtio":                                                                                "[]",
		"qemu -pflash /srv/vars.fd": "[{/srv/vars.fd firmware}]",
		"qemu -machine q35,pflash0=code,pflash1=vars -blockdev driver=file,node-name=f,filename=/srv/vars.fd -blockdev driver=raw,node-name=vars,file=f":                                                                                                                                                                                 "[{/srv/vars.fd firmware}]",
		"qemu -machine q35,pflash0=code,pflash1=vars -blockdev driver=raw,node-name=code,read-only=on,file.filename=/usr/CODE.fd":                                                                                                                                                                                                        "[]",
		`qemu -machine q35,pflash0=c-format,pflash1=v-format -blockdev {"driver":"file","filename":"/srv/vars.fd","node-name":"v"} -blockdev {"node-name":"v-format","read-only":false,"driver":"raw","file":"v"} -blockdev {"driver":"raw","node-name":"c-format","read-only":true,"file":{"driver":"file","filename":"/usr/CODE.fd"}}`: "[{/srv/vars.fd firmware}]",
		`qemu -machine pflash0=a -blockdev {"node-name":"a","file":{"driver":"file","filename":"/srv/a.fd"}} -blockdev {`:                                                                                                                                                                                                                "[{/srv/a.fd firmware}]",
		"qemu -kernel": "[]",
	} {
		if got := fmt.Sprint(definition.CommandFiles(strings.Fields(command))); got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
}
