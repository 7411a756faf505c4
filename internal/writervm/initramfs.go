package writervm

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/writervm/guest"
)

// maxModule bounds a module of the kernel, in bytes. btrfs, the largest, has 2 MB.
const maxModule = 64 << 20

// files are what a machine is made of.
type files struct{ kernel, initramfs, image *os.File }

// openFiles opens what a machine is made of. Kernel and initramfs are in memory, where
// QEMU can open them again, whoever it is.
func openFiles(image, executable string, k Kernel, modules []string) (_ *files, err error) {
	f := &files{}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.kernel, err = inMemory("kernel", func(w io.Writer) error { return copyFile(w, k.Image) }); err != nil {
		return nil, err
	}
	f.initramfs, err = inMemory("initramfs", func(w io.Writer) error { return fillInitramfs(&cpio{to: w}, executable, modules) })
	if err != nil {
		return nil, err
	}
	f.image, err = os.OpenFile(image, os.O_RDWR, 0)
	return f, err
}

func (f *files) close() {
	for _, o := range []*os.File{f.kernel, f.initramfs, f.image} {
		if o != nil {
			o.Close()
		}
	}
}

// inMemory makes a file that goes when it is closed.
func inMemory(name string, fill func(w io.Writer) error) (*os.File, error) {
	fd, err := unix.MemfdCreate("drydock-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := fill(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("prepare the %s of the machine that writes the image: %w", name, err)
	}
	return f, nil
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// fillInitramfs makes the archive that the kernel unpacks: executable is process 1, and
// modules are loaded in order.
func fillInitramfs(c *cpio, executable string, modules []string) error {
	program, err := staticProgram(executable)
	if err != nil {
		return err
	}
	const folder, char = unix.S_IFDIR | 0o755, unix.S_IFCHR | 0o600
	c.add("dev", folder, nil)
	c.device("dev/console", char, 5, 1) // what the kernel opens for process 1
	c.add(guest.Modules[1:], folder, nil)
	c.add("init", unix.S_IFREG|0o755, program)
	for i, path := range modules {
		module, err := readModule(path)
		if err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		c.add(fmt.Sprintf("%s/%03d-%s.ko", guest.Modules[1:], i, moduleName(path)), unix.S_IFREG|0o644, module)
	}
	return c.close()
}

// staticProgram reads a program that runs where there is no library.
func staticProgram(path string) ([]byte, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer e.Close()
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("this drydock needs libraries, and the machine has none (build it with CGO_ENABLED=0, as make does)")
		}
	}
	return program, nil
}

// readModule reads a module, as a distribution may have compressed it.
func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch ending := filepath.Ext(path); strings.ToLower(ending) {
	case ".ko":
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".xz":
		r, err = xz.NewReader(f)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(f); err == nil {
			defer d.Close()
			r = d
		}
	default:
		err = fmt.Errorf("modules that end in %s are not known", ending)
	}
	if err != nil {
		return nil, err
	}
	module, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(module) > maxModule {
		err = fmt.Errorf("it has more than %d bytes", maxModule)
	}
	return module, err
}

// cpio writes an archive in the format "newc" (Documentation/driver-api/early-userspace/
// buffer-format.rst): each file is
//
//	"070701" ino mode uid gid nlink mtime size major minor rmajor rminor namesize check
//
// in hexadecimal of eight digits each, its name with a NUL, and its content, both
// filled up to four bytes. The first error sticks.
type cpio struct {
	to    io.Writer
	count int
	err   error
}

func (c *cpio) add(name string, mode uint32, content []byte) { c.file(name, mode, 0, 0, content) }

func (c *cpio) device(name string, mode, major, minor uint32) { c.file(name, mode, major, minor, nil) }

func (c *cpio) file(name string, mode, major, minor uint32, content []byte) {
	c.count++
	header := fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.count, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0, name)
	c.write(header)
	c.write(content)
}

func (c *cpio) close() error {
	c.add("TRAILER!!!", 0, nil)
	return c.err
}

func (c *cpio) write(p []byte) {
	const unit = 4
	for _, b := range [][]byte{p, make([]byte, -len(p)&(unit-1))} {
		if c.err == nil {
			_, c.err = c.to.Write(b)
		}
	}
}
