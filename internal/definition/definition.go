// Package definition keeps in each backup what a VM is: where its disks lie and what
// they are, what starts it, the files of the host that say so, and drydock's own
// part of the configuration. With it, a repository and its key are enough to make
// the VM again on a host that has nothing (docs/format/definition.md).
//
//	objects, err := definition.Save(ctx, repo, &d, files, config)  // into a backup
//	d, err := definition.Load(tree, snapshot)                      // out of one
//
// What [Load] returns was checked: names are names, paths are absolute and clean,
// sizes and counts have limits, and no two things have one path. Where the paths
// lead is for the one who restores to judge: the repository may be a stranger's.
//
// No password, key or login goes in. What the VM's own command line and unit files
// say does.
package definition

import (
	"cmp"
	"errors"
	"io/fs"
	"syscall"
)

// Version is the version of the format. A reader passes over keys that it does not
// know, and refuses a definition of a later version.
const Version = 1

// Tag is the tag of a snapshot that has a definition.
const Tag = "definition"

// The places in a snapshot's tree.
const (
	// Folder is where everything lies, without the "/" in front.
	Folder = ".drydock"

	definitionPath = "/" + Folder + "/definition.json"
	configPath     = "/" + Folder + "/drydock.yaml"
	filesPath      = "/" + Folder + "/files" // with the file's own path behind it
)

// Definition is what a VM is.
type Definition struct {
	Version int      `json:"version"`
	VM      string   `json:"vm"`
	Driver  string   `json:"driver"` // as the configuration has it: "qemu", "systemd", "libvirt"
	Unit    string   `json:"unit,omitempty"`
	Command []string `json:"command,omitempty"` // QEMU and its arguments
	Disks   []Disk   `json:"disks"`
	Files   []File   `json:"files,omitempty"`
	// Missing says what should be in the backup and is not, a sentence each.
	Missing []string `json:"missing,omitempty"`
}

// Disk is one disk of a VM.
type Disk struct {
	Name   string `json:"name"`
	Path   string `json:"path"` // on the host
	Format string `json:"format"`
	Size   int64  `json:"size"` // bytes that the guest sees
	// ClusterSize is that of a qcow2 disk, in bytes; 0 where it is not known.
	ClusterSize int64 `json:"cluster_size,omitempty"`
	// Owner is that of its file; nil where it is not known.
	Owner *Owner `json:"owner,omitempty"`

	Backup    string `json:"backup"` // as the configuration has it: "files", "image", "off"
	Mount     string `json:"mount,omitempty"`
	Partition int    `json:"partition,omitempty"`
	Volume    string `json:"volume,omitempty"`

	// Pieces are where the filesystem lies whose files are backed up, if that does
	// not fill the disk: all of it, in order, but for room for a boot loader in
	// front.
	Pieces []Piece `json:"pieces,omitempty"`

	// Image is the image that the disk is made from, Release the version of it
	// that it had; nil if the image store did not make it.
	Image   string   `json:"image,omitempty"`
	Release *Release `json:"release,omitempty"`
}

// Piece is a part of a filesystem, in bytes.
type Piece struct {
	Offset int64 `json:"offset"` // in the filesystem
	At     int64 `json:"at"`     // on the disk
	Length int64 `json:"length"`
}

// Owner is who may use a file.
type Owner struct {
	Mode uint32 `json:"mode"` // permission bits, without setuid and the like
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
}

// Release is one version of an image.
type Release struct {
	Image   string `json:"image"`
	Version string `json:"version"`
	Size    int64  `json:"size"`   // bytes
	SHA256  string `json:"sha256"` // of the whole disk, hexadecimal
}

// Role is what a file of the host is for.
type Role string

// The roles. Others may come; a reader restores those like any.
const (
	RoleUnit     Role = "unit"
	RoleDropIn   Role = "drop-in"
	RoleDomain   Role = "domain"   // libvirt's XML
	RoleFirmware Role = "firmware" // variables of UEFI: pflash that the VM writes to
	RoleKernel   Role = "kernel"
	RoleInitrd   Role = "initrd"
	RoleSpec     Role = "specification" // of the images that a builder builds
)

// File is a file of the host that is in the backup.
type File struct {
	Path string `json:"path"` // on the host
	Role Role   `json:"role"`
	Owner
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// OwnerOf returns the owner of a file.
func OwnerOf(info fs.FileInfo) Owner {
	out := Owner{Mode: uint32(info.Mode().Perm())}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		out.UID, out.GID = st.Uid, st.Gid
	}
	return out
}

// Disk returns the disk of that name, or nil.
func (d *Definition) Disk(name string) *Disk {
	for i := range d.Disks {
		if d.Disks[i].Name == name {
			return &d.Disks[i]
		}
	}
	return nil
}

// The reasons why there is no definition, found with [errors.Is].
var (
	// ErrNone is of a backup that has none.
	ErrNone = errors.New("this backup has no definition of its VM")
	// ErrNewer is of one that a later drydock wrote.
	ErrNewer = errors.New("its definition was written by a later drydock")
	// ErrInvalid is of one that cannot be what drydock wrote.
	ErrInvalid = errors.New("its definition is not valid")
)

// byPath orders files.
func byPath(a, b File) int { return cmp.Compare(a.Path, b.Path) }
