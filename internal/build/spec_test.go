package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/build"
)

func twoImages() map[string]string {
	return map[string]string{
		"README":              "beside the images, and no part of the spec",
		".git/config":         "neither",
		"web/Containerfile":   "FROM localhost/debian\n",
		"web/files/index":     "hello",
		"web/files/empty":     "",
		"db/Dockerfile":       "FROM localhost/debian\n",
		"db/a name with blah": strings.Repeat("x", 5000),
	}
}

func writeSpec(t testing.TB, folder, buildID string) (build.Spec, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spec.raw")
	spec, err := build.WriteSpec(context.Background(), path, folder, buildID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return spec, data
}

// tree is what a folder holds: contents by path, symlinks with an arrow, and
// which files may be executed.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(folder, func(path string, item os.DirEntry, err error) error {
		if err != nil || item.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		if item.Type() == os.ModeSymlink {
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		}
		info, err := item.Info()
		if err != nil {
			return err
		}
		if info.Mode()&0o111 != 0 {
			name += "*"
		}
		content, err := os.ReadFile(path)
		found[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestSpecRoundTrip(t *testing.T) {
	folder := specFolder(t, twoImages())
	if err := os.Symlink("files/index", filepath.Join(folder, "web", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(folder, "web/files/index"), 0o700); err != nil {
		t.Fatal(err)
	}
	spec, data := writeSpec(t, folder, "night-1")
	if len(data) == 0 || len(data)%build.SpecAlign != 0 {
		t.Errorf("the disk has %d bytes", len(data))
	}
	header, err := build.ReadSpec(bytes.NewReader(data))
	if err != nil || header.SpecDigest != spec.SpecDigest || header.BuildID != "night-1" {
		t.Errorf("header %+v, %v", header, err)
	}
	if header.Images[0].Containerfile != "Dockerfile" || header.Images[1].Containerfile != "Containerfile" {
		t.Errorf("images %+v", header.Images)
	}
	out := t.TempDir()
	if _, err := build.ExtractSpec(context.Background(), bytes.NewReader(data), out); err != nil {
		t.Fatal(err)
	}
	want := tree(t, folder)
	delete(want, "README")
	delete(want, ".git/config")
	got := tree(t, out)
	if len(got) != len(want) {
		t.Errorf("%d files, not %d", len(got), len(want))
	}
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s: %.40q, not %.40q", name, got[name], content)
		}
	}
}

func TestSpecDisksOfTheSameFolderAreIdentical(t *testing.T) {
	one, other := specFolder(t, twoImages()), specFolder(t, twoImages())
	past := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(other, "web/files/index"), past, past); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(other, "web/files"), 0o700); err != nil { // another umask
		t.Fatal(err)
	}
	_, first := writeSpec(t, one, "night-1")
	spec, second := writeSpec(t, other, "night-1")
	if !bytes.Equal(first, second) {
		t.Error("the disks differ")
	}
	digest, err := build.SpecDigest(one)
	if err != nil || digest != spec.SpecDigest {
		t.Errorf("digest %s, %v, not %s", digest, err, spec.SpecDigest)
	}
}

func TestSpecDigestTellsChangesApart(t *testing.T) {
	seen := make(map[string]string)
	changes := map[string]func(folder string) error{
		"nothing": func(string) error { return nil },
		"content": func(f string) error { return os.WriteFile(filepath.Join(f, "web/files/index"), []byte("hullo"), 0o644) },
		"name": func(f string) error {
			return os.Rename(filepath.Join(f, "web/files/index"), filepath.Join(f, "web/files/indey"))
		},
		"mode":      func(f string) error { return os.Chmod(filepath.Join(f, "web/files/index"), 0o755) },
		"new file":  func(f string) error { return os.WriteFile(filepath.Join(f, "web/new"), nil, 0o644) },
		"new empty": func(f string) error { return os.Mkdir(filepath.Join(f, "web/new"), 0o755) },
		"image":     func(f string) error { return os.Rename(filepath.Join(f, "web"), filepath.Join(f, "www")) },
	}
	for name, change := range changes {
		folder := specFolder(t, twoImages())
		if err := change(folder); err != nil {
			t.Fatal(err)
		}
		digest, err := build.SpecDigest(folder)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[digest]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[digest] = name
	}
}

func TestSpecRefusesFolders(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		link  string
		field string
	}{
		"nothing":          {field: "/"},
		"no Containerfile": {files: map[string]string{"web/x": ""}, field: "web"},
		"upper-case image": {files: map[string]string{"Web/Containerfile": ""}, field: "Web"},
		"link to outside":  {files: map[string]string{"web/Containerfile": ""}, link: "../../etc/passwd", field: "web/link"},
		"absolute link":    {files: map[string]string{"web/Containerfile": ""}, link: "/etc/passwd", field: "web/link"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := specFolder(t, test.files)
			if test.link != "" {
				if err := os.Symlink(test.link, filepath.Join(folder, "web/link")); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(t.TempDir(), "spec.raw")
			_, err := build.WriteSpec(context.Background(), path, folder, "night-1")
			var wrong *build.FormatError
			if !errors.As(err, &wrong) || !strings.HasPrefix(wrong.Field, test.field) {
				t.Errorf("%v, and not an error of %s", err, test.field)
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
	if _, err := build.WriteSpec(context.Background(), filepath.Join(t.TempDir(), "s"), specFolder(t, twoImages()), "a b"); err == nil {
		t.Error("the build identifier \"a b\" was taken")
	}
}

// hostileSpec is a spec disk of a good header and other entries than it says.
func hostileSpec(t testing.TB, entries ...*tar.Header) []byte {
	t.Helper()
	_, data := writeSpec(t, specFolder(t, map[string]string{"web/Containerfile": "FROM scratch\n"}), "night-1")
	in := tar.NewReader(bytes.NewReader(data))
	header, err := in.Next()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(header); err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	if _, err := content.ReadFrom(in); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content.Bytes()); err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if err := w.WriteHeader(entry); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, entry.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSpecRefusesDisks(t *testing.T) {
	folder := &tar.Header{Name: "web/", Typeflag: tar.TypeDir, Mode: 0o755}
	file := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	tests := map[string][]*tar.Header{
		"missing files":    {folder},
		"another content":  {folder, {Name: "web/Containerfile", Typeflag: tar.TypeReg, Mode: 0o644, Size: 13}},
		"parent":           {folder, file("web/../../x")},
		"absolute":         {file("/etc/x")},
		"unknown image":    {file("db/x")},
		"dot":              {file(".")},
		"device":           {folder, {Name: "web/x", Typeflag: tar.TypeChar, Mode: 0o644}},
		"hardlink":         {folder, {Name: "web/x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd", Mode: 0o644}},
		"setuid":           {folder, {Name: "web/x", Typeflag: tar.TypeReg, Mode: 0o4755}, {Name: "web/y", Typeflag: tar.TypeReg, Mode: 0o600}},
		"symlink outside":  {folder, {Name: "web/x", Typeflag: tar.TypeSymlink, Linkname: "../../etc", Mode: 0o777}},
		"through symlink":  {folder, {Name: "web/x", Typeflag: tar.TypeSymlink, Linkname: "y", Mode: 0o777}, file("web/x/z")},
		"file twice":       {folder, file("web/x"), file("web/x")},
		"no folder before": {file("web/x")},
	}
	for name, entries := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, "out")
			if err := os.Mkdir(out, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := build.ExtractSpec(context.Background(), bytes.NewReader(hostileSpec(t, entries...)), out); err == nil {
				t.Error("it was taken")
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("it wrote outside of its folder: %v", left)
			}
		})
	}
}

func TestSpecCutAnywhereIsAnError(t *testing.T) {
	_, data := writeSpec(t, specFolder(t, twoImages()), "night-1")
	end := len(bytes.TrimRight(data, "\x00"))
	for cut := 0; cut < end; cut += 256 {
		if _, err := build.ExtractSpec(context.Background(), bytes.NewReader(data[:cut]), t.TempDir()); err == nil {
			t.Errorf("a disk cut at %d of %d was taken", cut, end)
		}
	}
}

func TestBlankSpec(t *testing.T) {
	for _, size := range []int{0, 1024, build.SpecAlign} {
		if _, err := build.ReadSpec(bytes.NewReader(make([]byte, size))); !errors.Is(err, build.ErrNoSpec) {
			t.Errorf("%d zeros: %v", size, err)
		}
	}
}

// Whatever is taken for a spec is a spec: writing the folder that came out of it
// gives the same digest again.
func FuzzExtractSpec(f *testing.F) {
	_, good := writeSpec(f, specFolder(f, map[string]string{"web/Containerfile": "FROM scratch\n"}), "night-1")
	good = good[:bytes.LastIndexFunc(good, func(r rune) bool { return r != 0 })+1025]
	f.Add(good)
	f.Add(hostileSpec(f, &tar.Header{Name: "web/../x", Typeflag: tar.TypeReg, Mode: 0o644}))
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		spec, err := build.ExtractSpec(context.Background(), bytes.NewReader(data), dir)
		if err != nil {
			return
		}
		digest, err := build.SpecDigest(dir)
		if err != nil || digest != spec.SpecDigest {
			t.Errorf("digest %s, %v, not %s", digest, err, spec.SpecDigest)
		}
	})
}
