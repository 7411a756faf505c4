package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
	"github.com/drydock-vm/drydock/internal/sandbox/worker"
)

const liarDisk = 1 << 20 // bytes

// liar is a worker that a guest has taken over. It answers honestly until the
// request op comes, and then with what answer returns, byte for byte.
type liar struct {
	name   string
	op     wire.Op
	answer func(id uint32, payload []byte) []byte
	// ask makes the parent send that request.
	ask  func(d *Reader) error
	want error
}

func liars() []liar {
	read := func(d *Reader) error {
		_, err := d.Disks()[0].ReadAt(make([]byte, 4096), 8192)
		return err
	}
	volumes := func(d *Reader) error {
		_, err := d.Volumes(context.Background())
		return err
	}
	mount := func(d *Reader) error {
		_, err := d.Filesystem(context.Background(), "root")
		return err
	}
	onFilesystem := func(ask func(disk.Filesystem) error) func(*Reader) error {
		return func(d *Reader) error {
			fs, err := d.Filesystem(context.Background(), "root")
			if err != nil {
				return err
			}
			return ask(fs)
		}
	}
	list := onFilesystem(func(fs disk.Filesystem) error {
		return fs.ReadDir(2, func(disk.DirEntry) error { return nil })
	})
	inode := onFilesystem(func(fs disk.Filesystem) error { _, err := fs.Inode(12); return err })
	listed := onFilesystem(func(fs disk.Filesystem) error {
		if err := fs.ReadDir(2, func(disk.DirEntry) error { return nil }); err != nil {
			return err
		}
		_, err := fs.Inode(12)
		return err
	})
	link := onFilesystem(func(fs disk.Filesystem) error { _, err := fs.Readlink(12); return err })
	xattrs := onFilesystem(func(fs disk.Filesystem) error { _, err := fs.Xattrs(12); return err })
	extents := func(d *Reader) error {
		return d.Disks()[0].Extents(0, 8192, func(disk.Extent) error { return nil })
	}
	small := onFilesystem(func(fs disk.Filesystem) error {
		f, err := fs.Open(12)
		if err != nil {
			return err
		}
		_, err = f.ReadAt(make([]byte, 10), 0)
		return err
	})

	one := func(name string) func(uint32, []byte) []byte {
		return answering(dirPage(true, disk.DirEntry{Name: []byte(name), Ino: 12}))
	}
	badInode := func(change func(*disk.Inode)) func(uint32, []byte) []byte {
		n := goodInode()
		change(&n)
		return answering(wire.AppendInode(nil, &n))
	}
	return []liar{
		{"more than any answer may have", wire.OpRead, func(id uint32, _ []byte) []byte {
			return frame(wire.Header{Length: wire.MaxAnswer + 1, ID: id}, nil)
		}, read, ErrLied},
		{"an answer to nothing", wire.OpRead, func(id uint32, _ []byte) []byte {
			return frame(wire.Header{Length: 4096, ID: id + 7}, make([]byte, 4096))
		}, read, ErrLied},
		{"an answer twice", wire.OpVolumes, func(id uint32, _ []byte) []byte {
			b := wire.VolumePage{Last: true}.Append(nil)
			return bytes.Repeat(frame(wire.Header{Length: uint32(len(b)), ID: id}, b), 2)
		}, func(d *Reader) error { return errors.Join(volumes(d), volumes(d)) }, ErrLied},
		{"reserved bytes", wire.OpRead, func(id uint32, _ []byte) []byte {
			b := frame(wire.Header{Length: 4096, ID: id}, make([]byte, 4096))
			b[15] = 1
			return b
		}, read, ErrLied},
		{"an unknown status", wire.OpRead, func(id uint32, _ []byte) []byte {
			return frame(wire.Header{Length: 4096, ID: id, Code: 9}, make([]byte, 4096))
		}, read, ErrLied},
		{"more content than asked for", wire.OpRead, answering(make([]byte, 4097)), read, ErrLied},
		{"less content than asked for", wire.OpRead, answering(make([]byte, 4095)), read, ErrLied},
		{"an error that is none", wire.OpRead, func(id uint32, _ []byte) []byte {
			return frame(wire.Header{Length: 3, ID: id, Code: wire.StatusError}, []byte{1, 2, 3})
		}, read, ErrLied},

		{"a name with a slash", wire.OpReadDir, one("../../etc/cron.d/x"), list, ErrLied},
		{"a name with a NUL", wire.OpReadDir, one("a\x00b"), list, ErrLied},
		{"no name", wire.OpReadDir, one(""), list, ErrLied},
		{"a dot", wire.OpReadDir, one("."), list, ErrLied},
		{"two dots", wire.OpReadDir, one(".."), list, ErrLied},
		{"a long name", wire.OpReadDir, one(strings.Repeat("a", 256)), list, ErrLied},
		{"a name twice in a page", wire.OpReadDir, answering(dirPage(true,
			disk.DirEntry{Name: []byte("a"), Ino: 12}, disk.DirEntry{Name: []byte("a"), Ino: 13})), list, ErrLied},
		{"a name twice in two pages", wire.OpReadDir, answering(dirPage(false,
			disk.DirEntry{Name: []byte("a"), Ino: 12})), list, ErrLied},
		{"an entry without inode", wire.OpReadDir, answering(dirPage(true, disk.DirEntry{Name: []byte("a")})), list, ErrLied},
		{"an entry of an unknown type", wire.OpReadDir, answering(dirPage(true,
			disk.DirEntry{Name: []byte("a"), Ino: 12, Type: 0o30000})), list, ErrLied},
		{"an empty page, and more to come", wire.OpReadDir, answering(dirPage(false)), list, ErrLied},
		{"many pages in few bytes", wire.OpReadDir, answering([]byte{0xff, 3, 0, 0, 1}), list, ErrLied},
		{"many entries in few bytes", wire.OpReadDir, answering([]byte{1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0}), list, ErrLied},
		{"another directory", wire.OpReadDir, func(id uint32, p []byte) []byte {
			w := wire.NewDirPagesWriter(nil)
			w.Begin(3)
			w.End(true)
			return answering(w.Finish())(id, p)
		}, list, ErrLied},
		{"more directories than asked for", wire.OpReadDir, func(id uint32, p []byte) []byte {
			w := wire.NewDirPagesWriter(nil)
			for ino := range uint64(2) {
				w.Begin(ino + 2)
				w.End(true)
			}
			return answering(w.Finish())(id, p)
		}, list, ErrLied},
		{"an entry of another file", wire.OpReadDir, func(id uint32, p []byte) []byte {
			n := goodInode()
			w := wire.NewDirPagesWriter(nil)
			w.Begin(2)
			w.Add(&wire.Entry{DirEntry: disk.DirEntry{Name: []byte("a"), Ino: 13}, Inode: &n})
			w.End(true)
			return answering(w.Finish())(id, p)
		}, list, ErrLied},

		{"another file than was listed", wire.OpDescribe, describing(disk.Inode{Ino: 13, Mode: disk.ModeRegular}), listed, ErrLied},
		{"a listed file of an unknown type", wire.OpDescribe, describing(disk.Inode{Ino: 12}), listed, ErrLied},
		{"more files than were listed", wire.OpDescribe, describing(goodInode(), goodInode()), listed, ErrLied},
		{"fewer files than were listed", wire.OpDescribe, describing(), listed, ErrLied},
		{"a listed file outside the image", wire.OpDescribe, func(id uint32, p []byte) []byte {
			n := goodInode()
			return answering(wire.AppendDescription(nil, &wire.Entry{Inode: &n, Pieces: []wire.Piece{
				{Extent: disk.Extent{Length: n.Size}, At: liarDisk - 1}}}))(id, p)
		}, listed, ErrLied},

		{"content that was not asked for", wire.OpDescribe, func(id uint32, p []byte) []byte {
			n := goodInode()
			return answering(wire.AppendDescription(nil, &wire.Entry{Inode: &n, Content: make([]byte, n.Size)}))(id, p)
		}, listed, ErrLied},

		{"another inode", wire.OpInode, badInode(func(n *disk.Inode) { n.Ino = 13 }), inode, ErrLied},
		{"an inode without type", wire.OpInode, badInode(func(n *disk.Inode) { n.Mode = 0o644 }), inode, ErrLied},
		{"an inode with a large mode", wire.OpInode, badInode(func(n *disk.Inode) { n.Mode |= 1 << 16 }), inode, ErrLied},
		{"a negative size", wire.OpInode, badInode(func(n *disk.Inode) { n.Size = -1 }), inode, ErrLied},
		{"a time of many nanoseconds", wire.OpInode, badInode(func(n *disk.Inode) { n.Change.Nsec = 1e9 }), inode, ErrLied},
		{"an inode and more", wire.OpInode, func(id uint32, p []byte) []byte {
			n := goodInode()
			return answering(append(wire.AppendInode(nil, &n), 0))(id, p)
		}, inode, ErrLied},

		{"a link to nothing", wire.OpReadlink, answering(nil), link, ErrLied},
		{"a link with a NUL", wire.OpReadlink, answering([]byte("a\x00")), link, ErrLied},
		{"a long link", wire.OpReadlink, answering(bytes.Repeat([]byte("a"), 4097)), link, ErrLied},

		{"an attribute twice", wire.OpXattrs, answering(wire.AppendXattrs(nil, []disk.Xattr{
			{Name: []byte("user.a")}, {Name: []byte("user.a")}})), xattrs, ErrLied},
		{"attributes out of order", wire.OpXattrs, answering(wire.AppendXattrs(nil, []disk.Xattr{
			{Name: []byte("user.b")}, {Name: []byte("user.a")}})), xattrs, ErrLied},
		{"a large attribute", wire.OpXattrs, answering(wire.AppendXattrs(nil, []disk.Xattr{
			{Name: []byte("user.a"), Value: make([]byte, 65537)}})), xattrs, ErrLied},
		{"many large attributes", wire.OpXattrs, answering(wire.AppendXattrs(nil, manyXattrs(17))), xattrs, ErrLied},

		{"no piece", wire.OpPieces, answering(wire.AppendPieces(nil, nil)), extents, ErrLied},
		{"a piece outside the image", wire.OpPieces, answering(wire.AppendPieces(nil, []wire.Piece{
			{Extent: disk.Extent{Length: 8192}, At: liarDisk - 8191}})), extents, ErrLied},
		{"a piece of another file", wire.OpPieces, answering(wire.AppendPieces(nil, []wire.Piece{
			{Extent: disk.Extent{Length: 8192}, File: 1}})), extents, ErrLied},
		{"an empty extent", wire.OpPieces, answering(unplaced(disk.Extent{Length: 0})), extents, ErrLied},
		{"an extent beyond the range", wire.OpPieces, answering(unplaced(disk.Extent{Length: liarDisk + 1})), extents, ErrLied},
		{"an extent of negative length", wire.OpPieces, answering(unplaced(disk.Extent{Length: -1})), extents, ErrLied},
		{"an extent of an unknown kind", wire.OpPieces, answering(unplaced(disk.Extent{Length: 8192, Kind: 3})), extents, ErrLied},
		{"extents that never end", wire.OpPieces, answering(unplaced(disk.Extent{Length: liarDisk - 1}, disk.Extent{Length: 2})), extents, ErrLied},

		{"a small file with wrong extents", wire.OpReadMany, answering(wire.AppendContent(nil,
			wire.Content{Told: true, Extents: []disk.Extent{{Length: 9}}})), small, ErrLied},
		{"a small file and its content again", wire.OpReadMany, answering(append(wire.AppendContent(nil,
			wire.Content{Told: true}), make([]byte, 10)...)), small, ErrLied},
		{"content in two places", wire.OpRead, answering(make([]byte, 65536)), func(d *Reader) error {
			_, err := d.Disks()[0].ReadAt(make([]byte, 65536), 4096)
			return err
		}, ErrLied},

		{"a volume in one that comes later", wire.OpVolumes, answering(wire.VolumePage{Last: true, List: []wire.Volume{
			{Name: "a", Kind: 2, Parent: 0, Size: 512}}}.Append(nil)), volumes, ErrLied},
		{"a volume of negative size", wire.OpVolumes, answering(wire.VolumePage{Last: true, List: []wire.Volume{
			{Name: "a", Kind: 1, Parent: wire.NoParent, Size: -1}}}.Append(nil)), volumes, ErrLied},
		{"a volume on one that is not there", wire.OpVolumes, answering(wire.VolumePage{Last: true, List: []wire.Volume{
			{Name: "a", Kind: 3, Parent: wire.NoParent, Members: []uint32{1}}}}.Append(nil)), volumes, ErrLied},
		{"volumes without end", wire.OpVolumes, answering(wire.VolumePage{List: []wire.Volume{
			{Name: "a", Kind: 1, Parent: wire.NoParent}}}.Append(nil)), volumes, ErrLied},
		{"a guest without filesystems", wire.OpGuest, answering(wire.GuestInfo{Info: goodInfo()}.Append(nil)), func(d *Reader) error {
			_, err := d.Guest(context.Background(), "")
			return err
		}, ErrLied},
		{"a filesystem without root", wire.OpMount, answering(wire.AppendInfo(nil,
			disk.FilesystemInfo{Type: "ext4", BlockSize: 4096})), mount, ErrLied},
		{"a disk of negative size", wire.OpOpen, answering(wire.Opened{Disks: []wire.OpenedDisk{{Size: -1}}}.Append(nil)), nil, ErrLied},
		{"more disks than there are", wire.OpOpen, answering(wire.Opened{Disks: make([]wire.OpenedDisk, 2)}.Append(nil)), nil, ErrLied},

		{"an exit", wire.OpRead, func(uint32, []byte) []byte { os.Exit(0); return nil }, read, ErrDied},
		{"a crash", wire.OpRead, func(uint32, []byte) []byte { panic("\x1b[2Jhostile") }, read, ErrDied},
		{"half an answer", wire.OpRead, func(id uint32, _ []byte) []byte {
			os.NewFile(worker.Socket, "").Write(frame(wire.Header{Length: 4096, ID: id}, make([]byte, 100)))
			os.Exit(3)
			return nil
		}, read, ErrDied},
		{"a closed socket", wire.OpRead, func(uint32, []byte) []byte {
			os.NewFile(worker.Socket, "").Close()
			time.Sleep(time.Hour)
			return nil
		}, read, ErrLied},
		{"silence", wire.OpRead, func(uint32, []byte) []byte { time.Sleep(time.Hour); return nil }, read, ErrTimeout},
		{"half an answer, and silence", wire.OpRead, func(id uint32, _ []byte) []byte {
			return frame(wire.Header{Length: 4096, ID: id}, make([]byte, 100))
		}, read, ErrTimeout},
		{"noise without end", wire.OpRead, func(uint32, []byte) []byte {
			for {
				os.Stderr.Write(bytes.Repeat([]byte("noise\n"), 1000))
			}
		}, read, ErrTimeout},
	}
}

func frame(h wire.Header, payload []byte) []byte {
	b := make([]byte, wire.HeaderSize, wire.HeaderSize+len(payload))
	wire.PutHeader(b, h)
	return append(b, payload...)
}

// answering is an answer in form, whatever the payload says.
func answering(payload []byte) func(uint32, []byte) []byte {
	return func(id uint32, _ []byte) []byte {
		return frame(wire.Header{Length: uint32(len(payload)), ID: id}, payload)
	}
}

func dirPage(last bool, entries ...disk.DirEntry) []byte {
	w := wire.NewDirPagesWriter(nil)
	w.Begin(2)
	for _, e := range entries {
		w.Add(&wire.Entry{DirEntry: e})
	}
	w.End(last)
	return w.Finish()
}

// describing is an answer that describes files.
func describing(list ...disk.Inode) func(uint32, []byte) []byte {
	var b []byte
	for i := range list {
		b = wire.AppendDescription(b, &wire.Entry{Inode: &list[i]})
	}
	return answering(b)
}

// unplaced encodes pieces that the worker must read.
func unplaced(extents ...disk.Extent) []byte {
	var list []wire.Piece
	for _, e := range extents {
		list = append(list, wire.Piece{Extent: e, File: wire.NoFile})
	}
	return wire.AppendPieces(nil, list)
}

func goodInfo() disk.FilesystemInfo {
	return disk.FilesystemInfo{Type: "ext4", Root: 2, BlockSize: 4096, Size: liarDisk}
}

func goodInode() disk.Inode { return disk.Inode{Ino: 12, Mode: disk.ModeRegular | 0o644, Size: 10} }

func manyXattrs(n int) []disk.Xattr {
	var list []disk.Xattr
	for i := range n {
		list = append(list, disk.Xattr{Name: fmt.Appendf(nil, "user.%02d", i), Value: make([]byte, wire.MaxXattrValue)})
	}
	return list
}

// lie is the life of a liar.
func lie(name string) int {
	for _, l := range liars() {
		if l.name == name {
			return l.serve(os.NewFile(worker.Socket, "socket"))
		}
	}
	return 1
}

func (l *liar) serve(socket io.ReadWriter) int {
	head := make([]byte, wire.HeaderSize)
	for {
		if _, err := io.ReadFull(socket, head); err != nil {
			return 0
		}
		h, err := wire.ParseHeader(head, wire.MaxRequest)
		if err != nil {
			return 1
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(socket, payload); err != nil {
			return 1
		}
		answer := honest(wire.Op(h.Code))
		if wire.Op(h.Code) == l.op {
			answer = l.answer
		}
		if _, err := socket.Write(answer(h.ID, payload)); err != nil {
			return 1
		}
	}
}

// honest answers as a worker does whose disk is fine.
func honest(op wire.Op) func(uint32, []byte) []byte {
	switch op {
	case wire.OpSetup:
		return answering(wire.AppendMeasures(nil, claims()))
	case wire.OpOpen:
		return func(id uint32, payload []byte) []byte {
			r, _ := wire.DecodeOpen(payload)
			disks := slices.Repeat([]wire.OpenedDisk{{Size: liarDisk}}, len(r.Disks))
			return answering(wire.Opened{Disks: disks}.Append(nil))(id, payload)
		}
	case wire.OpVolumes:
		return answering(wire.VolumePage{Last: true, List: []wire.Volume{{Name: "root", Kind: 1, Parent: wire.NoParent, Size: liarDisk}}}.Append(nil))
	case wire.OpPieces:
		return func(id uint32, payload []byte) []byte {
			r, _ := wire.DecodePiecesRequest(payload)
			return answering(unplaced(disk.Extent{Length: r.Length}))(id, payload)
		}
	case wire.OpMount:
		return answering(wire.AppendInfo(nil, goodInfo()))
	case wire.OpReadDir: // of a directory that has two pages
		return func(id uint32, payload []byte) []byte {
			r, _ := wire.DecodeReadDir(payload)
			e := disk.DirEntry{Name: fmt.Appendf(nil, "file %d", r.Skip), Ino: 11 + r.Skip}
			return answering(dirPage(r.Skip > 0, e))(id, payload)
		}
	case wire.OpInode:
		n := goodInode()
		return answering(wire.AppendInode(nil, &n))
	}
	return answering(nil)
}

// A worker that lies, dies or hangs costs its disk one clear error, and leaves
// no process behind.
func TestLiars(t *testing.T) {
	for _, l := range liars() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			opts := Options{Name: "web/root", Args: []string{"liar", l.name}}
			if l.want == ErrTimeout {
				opts.RequestTimeout = 2 * time.Second
			}
			d, err := Start(t.Context(), opts, liarSpec(t))
			if l.ask != nil {
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { d.Close() })
				err = l.ask(d)
			}
			e := new(Error)
			if !errors.Is(err, l.want) || !errors.As(err, &e) {
				t.Fatalf("got %v, want %v", err, l.want)
			}
			t.Log(err)
			if e.Disk != "web/root" || e.Reason == "" || e.Hint() == "" {
				t.Errorf("incomplete: %+v", e)
			}
			if len(e.Stderr) > 8*maxStderr || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("standard error came through: %q", e.Stderr)
			}
			if d == nil {
				return
			}
			if _, again := d.Disks()[0].ReadAt(make([]byte, 1), 0); !errors.Is(again, l.want) {
				t.Errorf("the disk is read again: %v", again)
			}
			if d.client.process.cmd.ProcessState == nil {
				t.Error("the worker is still there")
			}
		})
	}
}

func liarSpec(t *testing.T) DiskSpec {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, liarDisk), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return DiskSpec{Name: "root", File: f, Format: Raw}
}
