package writervm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrKernel is of a kernel that is not there, or cannot write the filesystem.
var ErrKernel = errors.New("no kernel for the machine that writes the image")

const fixKernel = "apt-get install linux-image-cloud-amd64, or name another kernel: --kernel, or writer.kernel in the configuration"

// Kernel is what the machine boots. The zero value is a kernel of this host.
type Kernel struct {
	Image   string // such as /boot/vmlinuz-6.1.0-56-amd64
	Modules string // the folder of its modules; /lib/modules/6.1.0-56-amd64 if empty
}

// required are the modules of the machine's devices. The filesystem's comes last.
var required = []string{"virtio_pci", "virtio_blk", "virtio_console"}

// optional are loaded before all others if there are such modules: filesystems ask for
// checksums by name, which no list of dependencies tells.
var optional = []string{"crc32c_generic", "xxhash_generic", "sha256_generic", "blake2b_generic"}

// Find returns a kernel that can write filesystems of a type: this one, unless it is the
// zero value. Then it is the kernel that runs on this host, or the newest of those in
// /boot.
func (k Kernel) Find(fstype string) (Kernel, error) {
	switch {
	case runtime.GOARCH != "amd64":
		return k, fmt.Errorf("%w: it is made for hosts of x86-64, and this one is %s (make an ext4)", ErrKernel, runtime.GOARCH)
	case k == Kernel{}:
		return findKernel("/", release(), fstype)
	case k.Image == "":
		return k, fmt.Errorf("%w: the folder %s of modules is given, and no kernel", ErrKernel, k.Modules)
	case k.Modules == "":
		k.Modules = modulesOf(k.Image)
	}
	_, err := k.check(fstype)
	return k, err
}

// modulesOf is where a kernel that is installed has its modules.
func modulesOf(image string) string {
	_, version, _ := strings.Cut(filepath.Base(image), "-")
	return filepath.Join("/lib/modules", version)
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// findKernel looks below root for a kernel, of which that of a version is preferred.
func findKernel(root, version, fstype string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil {
		return Kernel{}, err
	}
	age := func(path string) int64 {
		st, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return st.ModTime().UnixNano()
	}
	slices.SortStableFunc(images, func(a, b string) int { return cmp.Compare(age(b), age(a)) })
	mine := filepath.Join(root, "boot/vmlinuz-"+version)
	if i := slices.Index(images, mine); i > 0 {
		images = slices.Insert(slices.Delete(images, i, i+1), 0, mine)
	}
	if len(images) == 0 {
		return Kernel{}, fmt.Errorf("%w: there is none in /boot (%s)", ErrKernel, fixKernel)
	}
	var first error
	for _, image := range images {
		k := Kernel{image, filepath.Join(root, modulesOf(image))}
		_, err := k.check(fstype)
		if err == nil {
			return k, nil
		}
		if first == nil {
			first = err
		}
	}
	return Kernel{}, first
}

// check returns the modules to load, in order.
func (k Kernel) check(fstype string) ([]string, error) {
	if _, err := os.Stat(k.Image); err != nil {
		return nil, fmt.Errorf("%w: %w (%s)", ErrKernel, err, fixKernel)
	}
	list, err := k.load(fstype)
	if err != nil {
		return nil, fmt.Errorf("%w: kernel %s: %w (%s)", ErrKernel, k.Image, err, fixKernel)
	}
	return list, nil
}

// load returns the paths of the modules to load for a filesystem, in order.
func (k Kernel) load(fstype string) ([]string, error) {
	needs, err := k.dependencies()
	if err != nil {
		return nil, err
	}
	builtin, err := k.builtin()
	if err != nil {
		return nil, err
	}
	var paths []string
	add := func(list ...string) {
		for _, p := range list {
			if !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	for _, name := range optional {
		add(needs[name]...)
	}
	for _, name := range append(slices.Clone(required), fstype) {
		list, ok := needs[name]
		if !ok && !builtin[name] {
			return nil, fmt.Errorf("it has no %s: there is no such module in %s", name, k.Modules)
		}
		add(list...)
	}
	for i, p := range paths {
		if paths[i] = p; !filepath.IsAbs(p) {
			paths[i] = filepath.Join(k.Modules, p)
		}
	}
	return paths, nil
}

// dependencies reads modules.dep, as depmod(8) writes it: "PATH: NEEDS…", those first
// that are loaded last. Each module comes with what it needs, itself last.
func (k Kernel) dependencies() (map[string][]string, error) {
	text, err := os.ReadFile(filepath.Join(k.Modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		path, list, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		order := append([]string{path}, strings.Fields(list)...)
		slices.Reverse(order)
		needs[moduleName(path)] = order
	}
	return needs, nil
}

// builtin names what is in the kernel itself.
func (k Kernel) builtin() (map[string]bool, error) {
	text, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	in := map[string]bool{}
	for path := range strings.Lines(string(text)) {
		in[moduleName(strings.TrimSpace(path))] = true
	}
	return in, nil
}

// moduleName is the name of a module as the kernel has it. Its file may be compressed.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return strings.ReplaceAll(name, "-", "_")
}
