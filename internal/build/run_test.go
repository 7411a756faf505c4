package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/build"
)

// builderVM is what a builder VM has, on this machine: its folders, its disks
// and its clock. Two of them share nothing.
type builderVM struct {
	t       *testing.T
	options build.Options
	console bytes.Buffer
	clock   time.Time
}

func newBuilderVM(t *testing.T) *builderVM {
	t.Helper()
	dir := t.TempDir()
	vm := &builderVM{t: t, clock: time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)}
	vm.options = build.Options{
		SpecDevice: filepath.Join(dir, "spec.raw"),
		OutputDir:  filepath.Join(dir, "output"),
		BaseDir:    filepath.Join(dir, "base"),
		RunDir:     filepath.Join(dir, "run"),
		// The folder of a test may lie on an overlay, on which there is no
		// other.
		StorageDriver: "vfs",
		Progress:      &vm.console,
		Now:           func() time.Time { vm.clock = vm.clock.Add(time.Minute); return vm.clock },
	}
	for _, folder := range []string{vm.options.OutputDir, vm.options.BaseDir} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busyboxBase(t, filepath.Join(vm.options.BaseDir, "busybox"))
	return vm
}

// busyboxBase makes a base image out of the one static binary.
func busyboxBase(t *testing.T, dir string) {
	t.Helper()
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("%v (scripts/install-deps test installs it)", err)
	}
	var rootfs bytes.Buffer
	out := tar.NewWriter(&rootfs)
	for _, header := range []*tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(binary))},
		{Name: "bin/sh", Typeflag: tar.TypeLink, Mode: 0o755, Linkname: "bin/busybox"},
		{Name: "bin/date", Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: "busybox"},
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
	} {
		header.ModTime = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
		if err := out.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if header.Size > 0 {
			if _, err := out.Write(binary); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := build.MakeBase(context.Background(), dir, &rootfs); err != nil {
		t.Fatal(err)
	}
}

// build puts a spec disk in, boots, and returns what the host would find.
func (vm *builderVM) build(folder, buildID string) (build.Manifest, error) {
	vm.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := build.WriteSpec(ctx, vm.options.SpecDevice, folder, buildID); err != nil {
		vm.t.Fatal(err)
	}
	vm.console.Reset()
	runErr := build.Run(ctx, vm.options)
	return vm.manifest(), runErr
}

func (vm *builderVM) mustBuild(folder, buildID string) build.Manifest {
	vm.t.Helper()
	m, err := vm.build(folder, buildID)
	if err != nil {
		vm.t.Fatalf("%v\n%s", err, &vm.console)
	}
	return m
}

// manifest reads the manifest and checks that it tells the truth.
func (vm *builderVM) manifest() build.Manifest {
	vm.t.Helper()
	data, err := os.ReadFile(filepath.Join(vm.options.OutputDir, build.ManifestFile))
	if os.IsNotExist(err) {
		return build.Manifest{}
	}
	if err != nil {
		vm.t.Fatal(err)
	}
	m, err := build.ParseManifest(data)
	if err != nil {
		vm.t.Fatal(err)
	}
	for _, image := range m.Images {
		content, err := os.ReadFile(filepath.Join(vm.options.OutputDir, image.File))
		if err != nil {
			vm.t.Fatal(err)
		}
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != image.SHA256 || int64(len(content)) != image.Size {
			vm.t.Errorf("%s: the manifest's digest or size is not that of the file", image.File)
		}
	}
	return m
}

func (vm *builderVM) wantLastLine(want string) {
	vm.t.Helper()
	lines := strings.Split(strings.TrimSpace(vm.console.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, want) {
		vm.t.Errorf("the console ends with %q, not %q", last, want)
	}
}

// inside runs a command of debugfs on an image.
func (vm *builderVM) inside(image build.Image, command string) string {
	vm.t.Helper()
	output, err := exec.Command("debugfs", "-R", command, filepath.Join(vm.options.OutputDir, image.File)).Output()
	if err != nil {
		vm.t.Fatal(err)
	}
	return string(output)
}

// specFolder makes a spec folder: files by their path in it.
func specFolder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func webSpec(page string) map[string]string {
	return map[string]string{
		"web/Containerfile": "FROM localhost/busybox\nCOPY page /www/page\n" +
			"RUN date -u -d @0 > /etc/built && ln /www/page /www/same\n",
		"web/page": page,
	}
}

func TestUnchangedInputGivesTheIdenticalImage(t *testing.T) {
	one, other := newBuilderVM(t), newBuilderVM(t)
	first := one.mustBuild(specFolder(t, webSpec("hello\n")), "night-1")
	one.wantLastLine("drydock build: finished night-1")
	second := other.mustBuild(specFolder(t, webSpec("hello\n")), "somewhere-else")
	if first.Images[0].SHA256 != second.Images[0].SHA256 {
		t.Error("two builders made different images of the same input")
	}
	if first.Images[0].OCIDigest != second.Images[0].OCIDigest || first.Images[0].InputDigest != second.Images[0].InputDigest {
		t.Errorf("digests differ: %+v, %+v", first.Images[0], second.Images[0])
	}
	if page := one.inside(first.Images[0], "cat /www/same"); page != "hello\n" {
		t.Errorf("the page in the image is %q", page)
	}
	if built := one.inside(first.Images[0], "cat /etc/built"); !strings.Contains(built, "1970") {
		t.Errorf("what RUN wrote is %q", built)
	}

	t.Run("the same build is not repeated", func(t *testing.T) {
		one.mustBuild(specFolder(t, webSpec("hello\n")), "night-1")
		one.wantLastLine("drydock build: nothing to do")
	})
	t.Run("a new build of the same input keeps the image", func(t *testing.T) {
		again := one.mustBuild(specFolder(t, webSpec("hello\n")), "night-2")
		if again.BuildID != "night-2" || again.Images[0] != first.Images[0] {
			t.Errorf("%+v, not %+v", again.Images[0], first.Images[0])
		}
		if strings.Contains(one.console.String(), "building") {
			t.Errorf("it was built:\n%s", &one.console)
		}
	})
	t.Run("a changed input with the same result keeps the version", func(t *testing.T) {
		files := webSpec("hello\n")
		files["web/unused"] = "not copied"
		again := one.mustBuild(specFolder(t, files), "night-3")
		if again.Images[0].Version != first.Images[0].Version || again.Images[0].InputDigest == first.Images[0].InputDigest {
			t.Errorf("%+v after %+v", again.Images[0], first.Images[0])
		}
	})
	t.Run("a failed build leaves the last one", func(t *testing.T) {
		files := webSpec("hello\n")
		files["web/Containerfile"] += "RUN false\n"
		after, err := one.build(specFolder(t, files), "night-4")
		if err == nil || after.BuildID != "night-3" {
			t.Errorf("error %v, manifest of %s", err, after.BuildID)
		}
		one.wantLastLine("drydock build: failed night-4: image web: buildah build: exit status 1:")
	})
	t.Run("a changed input gives a new version, and the old one goes", func(t *testing.T) {
		after := one.mustBuild(specFolder(t, webSpec("bye\n")), "night-5")
		if after.Images[0].SHA256 == first.Images[0].SHA256 {
			t.Error("the image did not change")
		}
		if page := one.inside(after.Images[0], "cat /www/page"); page != "bye\n" {
			t.Errorf("the page in the image is %q", page)
		}
		left, err := filepath.Glob(filepath.Join(one.options.OutputDir, "*", "*.raw"))
		if err != nil || len(left) != 1 {
			t.Errorf("images on the output disk: %v, %v", left, err)
		}
	})
}

func TestRunWithoutSpec(t *testing.T) {
	vm := newBuilderVM(t)
	if err := os.WriteFile(vm.options.SpecDevice, make([]byte, build.SpecAlign), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := build.Run(context.Background(), vm.options); err != nil {
		t.Fatal(err)
	}
	vm.wantLastLine("drydock build: nothing to do")
}
