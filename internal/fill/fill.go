// Package fill puts disks of a backup in the place of a VM's, at once: each is an empty
// qcow2 image that lies on what an NBD server of this process exports. While the VM
// runs on them, QEMU copies what they lie on into them, until they need it no more.
//
//	f := fill.Files{Socket: "/run/drydock/from-backup/web.sock", Tool: tool}
//	err := f.Put(ctx, fill.Disk{Name: "data", Path: "/srv/web.qcow2", Kept: "/srv/web.qcow2.before-…", Content: backup})
//	server, err := f.Listen(disks, report)
//	// start the VM, then have its machine fill them in (vm.Filler)
//
// # What it promises
//
// The image that was there is kept under another name. At each moment one of the two is
// at the path. To put a disk again that was put changes nothing, whether or not it was
// filled in meanwhile. When the server dies, a guest that reads what was not filled in
// waits an hour for another one; what it has written is in the image.
package fill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/nbd"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/restore"
)

// Ending is behind the name of an image that is not in its place yet.
const Ending = ".from-backup"

// reconnect is how long QEMU waits for a server that is gone, in seconds, before reads
// fail.
const reconnect = 3600

// Disk is a disk to put.
type Disk struct {
	Name    string
	Path    string // of the image
	Kept    string // where the one is kept that is at Path
	Content disk.Sparse
	// Owner is that of the image if there was none; nil is this process.
	Owner *Owner
}

// Owner is who may use an image.
type Owner struct {
	UID, GID int         // -1 is that of this process
	Mode     fs.FileMode // permission bits
}

// Files puts disks.
type Files struct {
	// Socket is that of the server; it has to stay the same. Its folder and the one
	// above are drydock's own.
	Socket string
	Tool   *qemuimg.Tool
	// UID is who runs QEMU, if not root: the socket is that user's then, and others may
	// pass through drydock's two folders, which they cannot list.
	UID int
}

// backing is what the header of an image says that it lies on.
func (f Files) backing(name string) (string, error) {
	type server struct {
		Type string `json:"type"`
		Path string `json:"path"`
	}
	type export struct {
		Driver    string `json:"driver"`
		Export    string `json:"export"`
		Reconnect int    `json:"reconnect-delay"`
		Server    server `json:"server"`
	}
	text, err := json.Marshal(struct {
		Driver string `json:"driver"`
		File   export `json:"file"`
	}{"raw", export{"nbd", name, reconnect, server{"unix", f.Socket}}})
	return "json:" + string(text), err
}

// Waits reports whether the image at the disk's path lies on the server.
func (f Files) Waits(d Disk) (bool, error) {
	want, err := f.backing(d.Name)
	if err != nil {
		return false, err
	}
	h, err := qemuimg.ReadHeader(d.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, qemuimg.ErrNotQCOW2) {
		return false, nil
	}
	return err == nil && h.Backing == want, err
}

// Filled makes it durable that the image at the disk's path lies on the server no more;
// it is an error if it does.
func (f Files) Filled(d Disk) error {
	switch waits, err := f.Waits(d); {
	case err != nil:
		return err
	case waits:
		return errors.New("QEMU says that it is filled in, and its header says that it is not")
	}
	image, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	return errors.Join(image.Sync(), image.Close())
}

// Put puts an image that lies on the server at the disk's path, unless there is one.
// The VM is off. When it fails, what was there is there.
func (f Files) Put(ctx context.Context, d Disk) (err error) {
	there, err := f.Waits(d)
	if err != nil || there {
		return err
	}
	old, err := takeOld(d)
	if err != nil {
		return err
	}
	made := d.Path + Ending
	defer func() {
		if err == nil {
			return
		}
		if rerr := os.Remove(made); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	if old != nil {
		defer old.Close()
	}
	backing, err := f.backing(d.Name)
	if err != nil {
		return err
	}
	if err := f.Tool.CreateOverlay(ctx, made, backing, d.Content.Size()); err != nil {
		return err
	}
	if err := secure(made, d.Owner); err != nil {
		return err
	}
	if old != nil { // which the new one gets its owner from
		return restore.Replace(d.Path, made, d.Kept)
	}
	if err := atomicfile.RenameNew(made, d.Path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(d.Path))
}

// takeOld locks the image that is at the disk's path, until it is closed, and makes sure
// that it can be kept. It is nil if there is none.
func takeOld(d Disk) (*os.File, error) {
	old, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = imagelock.Acquire(old, imagelock.Exclusive)
	if err == nil {
		err = unlink(d.Kept, old)
	}
	if err != nil {
		return nil, errors.Join(err, old.Close())
	}
	return old, nil
}

// secure makes an image durable, and readable by its owner alone unless o says more.
func secure(path string, o *Owner) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o600)
	if o != nil {
		err, mode = f.Chown(o.UID, o.GID), o.Mode.Perm()
	}
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
}

// unlink removes the name that a process has made for the old image which then died.
func unlink(kept string, old *os.File) error {
	there, err := os.Stat(kept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	is, err := old.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(there, is) {
		return fmt.Errorf("%s: %w (move it away)", kept, fs.ErrExist)
	}
	return os.Remove(kept)
}

// Listen takes the server's socket.
func (f Files) Listen(disks []Disk, report func(error)) (*nbd.Server, error) {
	if err := os.MkdirAll(filepath.Dir(f.Socket), 0o700); err != nil {
		return nil, err
	}
	l, err := nbd.Listen(f.Socket)
	if err != nil {
		return nil, err
	}
	if err := f.admit(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	var exports []nbd.Export
	for _, d := range disks {
		exports = append(exports, nbd.Export{Name: d.Name, Disk: d.Content})
	}
	return nbd.Start(l, nbd.Options{Exports: exports, Report: report}, report), nil
}

// admit lets the user who runs QEMU reach the socket, and nobody else.
func (f Files) admit() error {
	if f.UID == 0 {
		return nil
	}
	const pass = 0o001
	dir := filepath.Dir(f.Socket)
	for range 2 {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if err := os.Chmod(dir, info.Mode().Perm()|pass); err != nil {
			return err
		}
		dir = filepath.Dir(dir)
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&pass == 0 {
			return fmt.Errorf("user %d, who runs the VM, cannot reach %s: %s is closed to others (chmod o+x %[3]s, or configure another folder as runtime)", f.UID, f.Socket, dir)
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return os.Lchown(f.Socket, f.UID, -1)
}
