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
}

// Files puts disks.
type Files struct {
	Socket string // of the server; it has to stay the same
	Tool   *qemuimg.Tool
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
	if err := secure(made); err != nil {
		return err
	}
	if old != nil {
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

// secure makes an image durable, and readable by its owner alone.
func secure(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Sync(), f.Close())
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
	var exports []nbd.Export
	for _, d := range disks {
		exports = append(exports, nbd.Export{Name: d.Name, Disk: d.Content})
	}
	return nbd.Start(l, nbd.Options{Exports: exports, Report: report}, report), nil
}
