package newimage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/diff"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/fusefs"
	"github.com/drydock-vm/drydock/internal/printed"
)

const (
	// maxMessage bounds what is kept of what a program says, in bytes.
	maxMessage = 2000
	// waitDelay is how long a program that was killed may keep its pipes open.
	waitDelay = 5 * time.Second
	// blockSize is that of all filesystems that are made, in bytes; maxInline is how much of
	// it attributes can have, less what an ACL may grow by in ext4's own form.
	blockSize = 4096
	maxInline = blockSize - 256
)

// program runs a program of e2fsprogs or btrfs-progs. Its exit code may be one of ok.
func (m *maker) program(stdin io.Reader, ok []int, name string, args ...string) error {
	c := exec.CommandContext(m.ctx, name, args...)
	c.Env = []string{"LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	c.WaitDelay = waitDelay
	c.Stdin = stdin
	said := &printed.Head{Limit: maxMessage}
	c.Stdout, c.Stderr = io.Discard, said
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		for _, code := range ok {
			if exit.ExitCode() == code {
				return nil
			}
		}
	}
	if err != nil {
		text, _ := said.Bytes()
		return fmt.Errorf("%s: %w: %s", name, err, escape.Line(strings.TrimSpace(string(text))))
	}
	return nil
}

// ext4 has mke2fs make the filesystem of the files that it sees through FUSE.
func (m *maker) ext4() error {
	mounted, err := fusefs.Mount(m.work.folder, m.src, fusefs.Options{FSName: "drydock-restore", NoExec: true, Report: m.src.failed})
	if err != nil {
		return err
	}
	err = m.mke2fs()
	// Nobody but the program had anything open, and it has ended.
	if uerr := mounted.Unmount(); uerr != nil {
		return errors.Join(err, uerr, mounted.Detach())
	}
	return err
}

// mke2fs makes the filesystem, and has it checked: mke2fs counts the blocks of large
// attributes wrong, and makes no index of large folders.
func (m *maker) mke2fs() error {
	args := []string{"-q", "-F", "-t", "ext4", "-b", strconv.Itoa(blockSize), "-I", "256", "-d", m.work.folder}
	if m.survey.xattrs > maxInline {
		args = append(args, "-O", "ea_inode")
	}
	if m.opts.UUID != [16]byte{} {
		args = append(args, "-U", uuidText(m.opts.UUID))
	}
	if l := m.opts.Label; len(l) > 0 && len(l) <= 16 && bytes.IndexByte(l, 0) < 0 {
		args = append(args, "-L", string(l))
	}
	// An inode for each 16 KiB is the default, and too few for many small files.
	if want := m.survey.files + m.survey.dirs + m.survey.dirs/8 + 1024; want > m.opts.Size/(16<<10) {
		args = append(args, "-N", strconv.FormatInt(want+want/4, 10))
	}
	if err := m.program(nil, nil, "mke2fs", append(args, "--", m.work.image)...); err != nil {
		return fmt.Errorf("%w (is there room on the host's disk for %s? Then choose a larger size)", err, escape.Line(m.target))
	}
	// 1: there was something to mend, and it is mended.
	return m.program(nil, []int{1}, "e2fsck", "-f", "-y", "-D", m.work.image)
}

func uuidText(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// check mends what the programs lose, and compares the image with the backup.
func (m *maker) check() error {
	if m.opts.Filesystem == "ext4" {
		if err := m.ext4Times(); err != nil {
			return err
		}
	}
	m.src.restart()
	m.step = "checking the image"
	s, err := m.compare(diff.Options{Content: true, FolderTimes: true, Changed: func(c *diff.Change) error {
		if m.opts.Differs != nil {
			m.opts.Differs(c)
		}
		return nil
	}})
	if err != nil {
		return err
	}
	m.report.Differs = *s
	return nil
}

// compare compares the backup, as the programs saw it, with the image.
func (m *maker) compare(o diff.Options) (*diff.Summary, error) {
	f, err := os.Open(m.work.image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	made, stop, err := m.opts.Read(m.ctx, f)
	if err != nil {
		return nil, err
	}
	defer stop()
	o.Select = func(path []byte, _ bool) diff.Choice {
		if string(path) == "lost+found" { // mke2fs makes one
			return diff.IfInBoth
		}
		return diff.Always
	}
	return diff.Run(m.ctx, diff.Side{FS: m.src}, diff.Side{FS: acls{made}}, o)
}

// ext4Times puts in what mke2fs drops of times: the nanoseconds, and the bits of the
// seconds above 32. Of the root directory it drops all but attributes.
func (m *maker) ext4Times() error {
	commands, err := m.work.script()
	if err != nil {
		return err
	}
	defer commands.Close()
	w := bufio.NewWriter(commands)
	_, err = m.compare(diff.Options{FolderTimes: true, Changed: func(c *diff.Change) error {
		if c.Kind != diff.Changed || c.What&diff.Type != 0 {
			return nil
		}
		return mend(w, c)
	}})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return err
	}
	return m.program(nil, nil, "debugfs", "-w", "-f", commands.Name(), m.work.image)
}

// mend writes the commands of debugfs for one file.
func mend(w io.Writer, c *diff.Change) error {
	n := c.Before
	var text strings.Builder
	set := func(field string, format string, value any) {
		fmt.Fprintf(&text, "sif <%d> %s "+format+"\n", c.After.Ino, field, value)
	}
	if string(c.Path) == "/" {
		set("mode", "%#o", n.Mode)
		set("uid", "%d", n.UID)
		set("gid", "%d", n.GID)
	}
	if c.What&diff.Time != 0 {
		for field, t := range map[string]disk.Time{"mtime": n.Modify, "atime": n.Access, "ctime": n.Change} {
			set(field, "@%d", int32(t.Sec))
			set(field+"_extra", "%d", timeExtra(t))
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// timeExtra is i_mtime_extra of ext4 (Documentation/filesystems/ext4/inodes.rst):
// bits 0 and 1 extend the seconds, which are signed, by 2 bits, and the others are
// nanoseconds.
func timeExtra(t disk.Time) uint32 {
	epoch := uint32((t.Sec-int64(int32(t.Sec)))>>32) & 3
	return t.Nsec<<2 | epoch
}
