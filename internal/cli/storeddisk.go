package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
)

// storedDisk is a disk as a backup has it. What the repository says of it is hostile.
type storedDisk struct {
	Name  string `json:"name"`
	Mode  string `json:"mode"`            // "files" or "image"
	Mount string `json:"mount,omitempty"` // where its files are in the backup
	// Filesystem and its Size are those that the disk of files had; Size is that of
	// the disk where it is an image, and Data what of it is no zeros. They are 0
	// where that is not told.
	Filesystem string `json:"filesystem,omitempty"`
	Size       int64  `json:"size,omitempty"`
	Data       int64  `json:"data,omitempty"`
}

// storedDisks are the disks that a backup has, as its tags tell.
func storedDisks(s *repository.Snapshot) []storedDisk {
	var out []storedDisk
	for _, tag := range s.Tags {
		if text, ok := strings.CutPrefix(tag, "disk:"); ok {
			name, mount, _ := strings.Cut(text, "=")
			d := storedDisk{Name: name, Mode: config.BackupFiles, Mount: mount}
			if f, ok := backup.FilesystemOf(s, name); ok {
				d.Filesystem, d.Size = f.Type, f.Size
			}
			out = append(out, d)
		} else if name, ok := wholedisk.TagDisk(tag); ok {
			out = append(out, storedDisk{Name: name, Mode: config.BackupImage})
		}
	}
	return out
}

// measure finds out how large the disk is, if it is an image.
func (d *storedDisk) measure(tree *restore.Tree) error {
	if d.Mode != config.BackupImage {
		return nil
	}
	image, err := tree.Image(d.Name)
	if err != nil {
		return fmt.Errorf("disk %s: %w", escape.Line(d.Name), err)
	}
	d.Size = image.Size()
	return image.Extents(0, d.Size, func(e disk.Extent) error {
		if e.Kind == disk.ExtentData {
			d.Data += e.Length
		}
		return nil
	})
}

// measured are the disks with all that the backup tells. The error says which could
// not be looked at.
func measured(s *repository.Snapshot, tree *restore.Tree) ([]storedDisk, error) {
	list := storedDisks(s)
	var errs []error
	for i := range list {
		errs = append(errs, list[i].measure(tree))
	}
	return list, errors.Join(errs...)
}

// diskCell names the disks in a column: those that are images as such.
func diskCell(list []storedDisk) string {
	var names []string
	for _, d := range list {
		name := escape.Line(d.Name)
		if d.Mode == config.BackupImage {
			name += " (image)"
		}
		names = append(names, name)
	}
	if names == nil {
		return "-"
	}
	return strings.Join(names, ", ")
}

// String says what the backup has of the disk.
func (d storedDisk) String() string {
	if d.Mode == config.BackupImage {
		return fmt.Sprintf("%s: image of %s, %s of it data", d.Name, round.Bytes(d.Size), round.Bytes(d.Data))
	}
	text := fmt.Sprintf("%s: files at %s", d.Name, d.Mount)
	if d.Filesystem != "" {
		text += fmt.Sprintf(", of %s of %s", d.Filesystem, round.Bytes(d.Size))
	}
	return text
}

// sizeCell is what a backup has: the bytes of files, and the sizes of disks that it has
// whole.
func sizeCell(b *round.BackupReport) string {
	if b == nil {
		return "-"
	}
	files, images := b.BytesTotal, int64(0)
	for _, i := range b.Images {
		files -= i.Size
		if !i.Layout {
			images += i.Size
		}
	}
	var parts []string
	if files > 0 || images == 0 {
		parts = append(parts, round.Bytes(files))
	}
	if images > 0 {
		parts = append(parts, round.Bytes(images)+" image")
	}
	return strings.Join(parts, " + ")
}
