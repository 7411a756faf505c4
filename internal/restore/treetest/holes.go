package treetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Holes describes where the holes of the files below a folder are, one line for
// each file that has some.
func Holes(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	walk(t, root, func(path, rel string, st *unix.Stat_t) {
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return
		}
		line := fmt.Sprintf("%q has holes at", rel)
		var end int64
		err := runs(path, st.Size, func(_ *os.File, off, length int64) error {
			if off > end {
				line += fmt.Sprintf(" %d+%d", end, off-end)
			}
			end = off + length
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if end < st.Size {
			line += fmt.Sprintf(" %d+%d", end, st.Size-end)
			end = 0
		}
		if line[len(line)-1] != 't' {
			out = append(out, line)
		}
	})
	return out
}

// runs calls yield for the runs of data in a file, as lseek(2) finds them.
func runs(path string, size int64, yield func(f *os.File, off, length int64) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for end := int64(0); end < size; {
		start, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err == nil {
			end, err = f.Seek(start, unix.SEEK_HOLE)
		}
		if err == nil {
			err = yield(f, start, end-start)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// digest is the hash of a file's content, of which zeros count for nothing in
// blocks of their own: files of a terabyte are hashed in no time, and equal ones
// with different holes have one hash.
func digest(path string, size int64) ([]byte, error) {
	const block = 512
	var zeros [block]byte
	h := sha256.New()
	err := runs(path, size, func(f *os.File, off, length int64) error {
		buf := make([]byte, 1<<20)
		for end := off + length; off < end; {
			p := buf[:min(int64(len(buf))-off%block, end-off)]
			if _, err := io.ReadFull(io.NewSectionReader(f, off, int64(len(p))), p); err != nil {
				return err
			}
			for len(p) > 0 {
				n := int(min(block-off%block, int64(len(p))))
				if !bytes.Equal(p[:n], zeros[:n]) {
					h.Write(binary.LittleEndian.AppendUint64(nil, uint64(off)))
					h.Write(p[:n])
				}
				p, off = p[n:], off+int64(n)
			}
		}
		return nil
	})
	return h.Sum(nil), err
}
