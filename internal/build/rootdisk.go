package build

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// fixedTime is the time of everything in a root disk that says when the disk
// was made, in seconds since the epoch. Zero would mean the present to mke2fs.
const fixedTime = "1"

// makeRootDisk makes a raw ext4 filesystem at path from a tree. The same tree
// (names, contents, modes, owners, xattrs, modification times) and the same
// seed give the same bytes, wherever and whenever the tree was unpacked.
func makeRootDisk(ctx context.Context, path, tree, seed string) error {
	size, inodes, err := measureTree(ctx, tree)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(diskSize(size)); err != nil {
		return err
	}
	uuid := seedUUID(seed)
	if _, err := e2fs(ctx, nil, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root",
		"-m", "0", "-N", strconv.FormatInt(inodes+inodes/4+1024, 10), "-J", "size=8",
		"-U", uuid, "-E", "hash_seed="+uuid+",root_owner=0:0,lazy_itable_init=0,nodiscard",
		"-d", tree, path); err != nil {
		return err
	}
	if err := fixTimes(ctx, path); err != nil {
		return err
	}
	_, err = e2fs(ctx, nil, "e2fsck", "-fn", path)
	return err
}

// Room of a root disk beyond the bytes of its files: for the filesystem's own
// structures, and for what an administrator may have to put there.
const (
	blockSize   = 4096     // bytes
	inodeRoom   = 512      // bytes for each inode and its directory entry
	freeRoom    = 16 << 20 // bytes
	diskQuantum = 16 << 20 // bytes: sizes are multiples of it
)

func diskSize(content int64) int64 {
	size := content + content/8 + freeRoom
	return (size + diskQuantum - 1) / diskQuantum * diskQuantum
}

// measureTree adds up what a tree needs: bytes and inodes. Hardlinks count
// once.
func measureTree(ctx context.Context, tree string) (size, inodes int64, err error) {
	seen := make(map[uint64]bool)
	err = filepath.WalkDir(tree, func(path string, item fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := item.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && !info.IsDir() && stat.Nlink > 1 {
			if seen[stat.Ino] {
				return nil
			}
			seen[stat.Ino] = true
		}
		inodes++
		size += inodeRoom
		switch {
		case info.Mode().IsRegular():
			size += (info.Size() + blockSize - 1) / blockSize * blockSize
		case info.IsDir():
			size += blockSize
		}
		return ctx.Err()
	})
	if err != nil {
		return 0, 0, fmt.Errorf("measure the container: %w", err)
	}
	return size, inodes, nil
}

// fixTimes gives the inodes of a fresh filesystem a fixed atime and ctime: those
// that mke2fs copied say when the tree was unpacked and read, and nothing can
// set a ctime before.
func fixTimes(ctx context.Context, path string) error {
	used, err := usedInodes(ctx, path)
	if err != nil {
		return err
	}
	var script bytes.Buffer
	for _, inode := range used {
		for _, field := range []string{"atime", "ctime"} {
			fmt.Fprintf(&script, "set_inode_field <%d> %s @%s\n", inode, field, fixedTime)
		}
	}
	_, err = e2fs(ctx, &script, "debugfs", "-w", "-f", "-", path)
	return err
}

// usedInodes lists the inodes in use: the root folder's, and all beyond the
// reserved ones that dumpe2fs does not call free.
func usedInodes(ctx context.Context, path string) ([]int64, error) {
	const root, firstUser = 2, 11
	output, err := e2fs(ctx, nil, "dumpe2fs", path)
	if err != nil {
		return nil, err
	}
	var count int64
	free := make(map[int64]bool)
	lines := bufio.NewScanner(bytes.NewReader(output))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch name {
		case "Inode count":
			count, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		case "  Free inodes": // of a block group; without the indent, a mere count
			err = addRanges(free, value)
		}
		if err != nil {
			return nil, fmt.Errorf("dumpe2fs: %q: %w", lines.Text(), err)
		}
	}
	used := []int64{root}
	for inode := int64(firstUser); inode <= count; inode++ {
		if !free[inode] {
			used = append(used, inode)
		}
	}
	return used, lines.Err()
}

// addRanges adds the numbers of "12-345, 400" to set.
func addRanges(set map[int64]bool, text string) error {
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		low, high, isRange := strings.Cut(item, "-")
		if !isRange {
			high = low
		}
		first, err := strconv.ParseInt(low, 10, 64)
		if err != nil {
			return err
		}
		last, err := strconv.ParseInt(high, 10, 64)
		if err != nil {
			return err
		}
		for number := first; number <= last; number++ {
			set[number] = true
		}
	}
	return nil
}

// seedUUID makes a UUID from a seed: of version 8, as RFC 9562 has them for
// uses of one's own.
func seedUUID(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// e2fs runs a tool of e2fsprogs at the fixed time.
func e2fs(ctx context.Context, input *bytes.Buffer, name string, arguments ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, name, arguments...)
	command.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME="+fixedTime, "LC_ALL=C")
	if input != nil {
		command.Stdin = input
	}
	var output bytes.Buffer
	last := &lastLine{}
	command.Stdout, command.Stderr = &output, last
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, last)
	}
	return output.Bytes(), nil
}
