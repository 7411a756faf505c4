package wire_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

var file = wire.File{
	Inode: disk.Inode{
		Ino: 1<<56 - 1, Size: 1 << 60, Mode: 0o104755, UID: 1<<32 - 2, GID: 7, Links: 3,
		Rdev: disk.Device{Major: 259, Minor: 1 << 19}, Flags: disk.FlagAppend | disk.FlagSubvolume, Subvolume: 1<<16 - 1,
		Modify: disk.Time{Sec: -1, Nsec: 999_999_999}, Access: disk.Time{Sec: 1 << 33},
	},
	Name: []byte("not\xffutf8"), Target: []byte("target"),
	Xattrs: []disk.Xattr{{Name: []byte("user.a"), Value: []byte{0, 1}}, {Name: []byte("user.b"), Value: []byte{}}},
}

func TestFilesComeBack(t *testing.T) {
	b := wire.AppendFile(nil, &file)
	got, err := wire.DecodeFile(b)
	if err != nil || !reflect.DeepEqual(got, &file) {
		t.Errorf("%+v, %v", got, err)
	}
	whole := 0
	for n := range b {
		if _, err := wire.DecodeFile(b[:n]); err == nil {
			whole++ // cut before an attribute
		} else if !errors.Is(err, wire.ErrBroken) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if whole != 2 {
		t.Errorf("%d beginnings are files, want those before each of two attributes", whole)
	}
}

func TestComplaintsComeBack(t *testing.T) {
	for _, c := range []*wire.Complaint{
		{Errno: syscall.ENOSPC, Path: []byte("/a"), Text: "text"},
		{Path: []byte{}},
	} {
		b := wire.AppendComplaint(nil, c)
		if got, err := wire.DecodeComplaint(b); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%+v, %v", got, err)
		}
		for n := range b {
			if _, err := wire.DecodeComplaint(b[:n]); !errors.Is(err, wire.ErrBroken) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
	}
	long := strings.Repeat("x", 1<<20)
	if b := wire.AppendComplaint(nil, &wire.Complaint{Path: []byte(long), Text: long}); len(b) > wire.MaxToHost {
		t.Errorf("a complaint of %d bytes", len(b))
	}
}

func TestMessagesAreBounded(t *testing.T) {
	stream := wire.Append(wire.Append(nil, wire.Node, []byte("12"), []byte("34")), wire.Up)
	r := wire.NewReader(bytes.NewReader(stream), 4)
	if kind, p, err := r.Next(); kind != wire.Node || string(p) != "1234" || err != nil {
		t.Errorf("%q %q %v", kind, p, err)
	}
	if kind, p, err := r.Next(); kind != wire.Up || len(p) != 0 || err != nil {
		t.Errorf("%q %q %v", kind, p, err)
	}
	if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	if _, _, err := wire.NewReader(bytes.NewReader(stream), 3).Next(); !errors.Is(err, wire.ErrBroken) {
		t.Errorf("too long: %v", err)
	}
	for n := 1; n < 9; n++ {
		if _, _, err := wire.NewReader(bytes.NewReader(stream[:n]), 4).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestRangesLieInTheirFile(t *testing.T) {
	r := wire.Range{Offset: 7, Length: 93}
	b := wire.AppendRange(nil, r)
	if got, err := wire.DecodeRange(b, 100); err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := wire.DecodeRange(b[:n], 100); !errors.Is(err, wire.ErrBroken) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for size, b := range map[int64][]byte{
		99: b, 6: b, 101: append(b, 0), 100: wire.AppendRange(nil, wire.Range{Offset: -1, Length: 1}), 102: wire.AppendRange(nil, wire.Range{Offset: 1, Length: -1}),
	} {
		if r, err := wire.DecodeRange(b, size); !errors.Is(err, wire.ErrBroken) {
			t.Errorf("of %d bytes: %+v, %v", size, r, err)
		}
	}
}

func TestSubvolumesAreNumbers(t *testing.T) {
	ids := []uint32{256, 257, 65535}
	b := wire.AppendSubvolumes(nil, ids)
	if got, err := wire.DecodeSubvolumes(b); err != nil || !slices.Equal(got, ids) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := wire.DecodeSubvolumes(b[:len(b)-1]); !errors.Is(err, wire.ErrBroken) {
		t.Errorf("a number that is cut off: %v, %v", got, err)
	}
}

// FuzzFile: what is a file is written as it was read.
func FuzzFile(f *testing.F) {
	f.Add(wire.AppendFile(nil, &file))
	f.Add(wire.AppendFile(nil, &wire.File{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := wire.DecodeFile(b)
		if err != nil {
			return
		}
		if again := wire.AppendFile(nil, got); !bytes.Equal(again, b) {
			t.Errorf("%x\n%x", b, again)
		}
	})
}
