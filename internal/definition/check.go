package definition

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of a definition. They are far above what a VM has, and keep what a
// stranger's repository says from taking much memory.
const (
	maxDisks   = 1000
	maxWords   = 10_000 // of a command line
	maxPath    = 4096   // bytes: Linux's PATH_MAX
	maxMissing = 1000
	// MaxPieces is in how many pieces a filesystem may lie: LVM makes a handful of a
	// logical volume.
	MaxPieces = 10_000
	// maxSize is the largest disk, in bytes: that of package wholedisk.
	maxSize = 16 << 40
)

// The names, as package config and package image have them.
var (
	vmName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	diskName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	roleName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	digest   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// check refuses what drydock does not write.
func (d *Definition) check() error {
	switch {
	case d.Version < 1:
		return fmt.Errorf("version %d", d.Version)
	case !vmName.MatchString(d.VM):
		return fmt.Errorf("%.80q is not the name of a VM", d.VM)
	}
	names, paths := map[string]bool{}, map[string]bool{}
	for i := range d.Disks {
		v := &d.Disks[i]
		if err := v.check(); err != nil {
			return err
		}
		if names[v.Name] || paths[v.Path] {
			return fmt.Errorf("disk %s is there twice, or its path is", v.Name)
		}
		names[v.Name], paths[v.Path] = true, true
	}
	for i := range d.Files {
		f := &d.Files[i]
		if !roleName.MatchString(string(f.Role)) {
			return fmt.Errorf("file %.200q: %.80q is no role", f.Path, f.Role)
		}
		if !cleanPath(f.Path) || paths[f.Path] || f.Size < 0 || f.Size > MaxFile || !digest.MatchString(f.SHA256) || f.Mode&^0o777 != 0 {
			return fmt.Errorf("file %.200q has a path, size, mode or digest that cannot be", f.Path)
		}
		paths[f.Path] = true
	}
	return nil
}

// counter counts the elements of a list, without memory for them. A key that is there
// twice counts twice.
type counter int

func (c *counter) UnmarshalJSON(text []byte) error {
	var list []uncounted
	err := json.Unmarshal(text, &list)
	*c += counter(len(list))
	return err
}

type uncounted struct{}

func (*uncounted) UnmarshalJSON([]byte) error { return nil }

// checkCounts refuses a definition with more in it than there can be, before it takes
// the memory for it: three bytes of JSON make a [Disk].
func checkCounts(text []byte) error {
	var n struct{ Command, Disks, Files, Missing counter }
	if err := json.Unmarshal(text, &n); err != nil {
		return err
	}
	if n.Disks > maxDisks || n.Files > maxFiles || n.Command > maxWords || n.Missing > maxMissing {
		return fmt.Errorf("it has %d disks, %d files, %d words and %d remarks, more than there can be", n.Disks, n.Files, n.Command, n.Missing)
	}
	return nil
}

func (v *Disk) check() error {
	switch {
	case !diskName.MatchString(v.Name):
		return fmt.Errorf("%.80q is not the name of a disk", v.Name)
	case !cleanPath(v.Path):
		return fmt.Errorf("disk %s: %.200q is not an absolute and clean path", v.Name, v.Path)
	case v.Format != "raw" && v.Format != "qcow2":
		return fmt.Errorf("disk %s: there is no format %.80q", v.Name, v.Format)
	case v.Size < 0 || v.Size > maxSize || v.ClusterSize != 0 && (v.ClusterSize < 512 || v.ClusterSize > 2<<20) || v.ClusterSize&(v.ClusterSize-1) != 0:
		return fmt.Errorf("disk %s: it cannot have %d bytes in clusters of %d", v.Name, v.Size, v.ClusterSize)
	case v.Owner != nil && v.Owner.Mode&^0o777 != 0:
		return fmt.Errorf("disk %s: it cannot have the mode %#o", v.Name, v.Owner.Mode)
	case v.Mount != "" && (!path.IsAbs(v.Mount) || path.Clean(v.Mount) != v.Mount):
		return fmt.Errorf("disk %s: %.200q is no mount point", v.Name, v.Mount)
	case v.Image != "" && !vmName.MatchString(v.Image):
		return fmt.Errorf("disk %s: %.80q is not the name of an image", v.Name, v.Image)
	}
	if err := v.checkPieces(); err != nil {
		return err
	}
	if r := v.Release; r != nil {
		if !vmName.MatchString(r.Image) || !vmName.MatchString(r.Version) || !digest.MatchString(r.SHA256) || r.Size <= 0 || r.Size > maxSize {
			return fmt.Errorf("disk %s: its version has a name, size or digest that cannot be", v.Name)
		}
	}
	return nil
}

// checkPieces makes sure that pieces are in order, and each on the disk, where no other
// is.
func (v *Disk) checkPieces() error {
	if len(v.Pieces) > MaxPieces {
		return fmt.Errorf("disk %s: its filesystem lies in %d pieces, more than there can be", v.Name, len(v.Pieces))
	}
	end := int64(0)
	for i, p := range v.Pieces {
		if p.Offset < 0 || i > 0 && p.Offset != end || p.Length <= 0 || p.At < 0 || p.At > v.Size || p.Length > v.Size-p.At || p.Length > maxSize-p.Offset {
			return fmt.Errorf("disk %s: a piece of its filesystem, %d bytes at %d, cannot lie there", v.Name, p.Length, p.At)
		}
		end = p.Offset + p.Length
	}
	there := v.PiecesByPlace()
	for i := 1; i < len(there); i++ {
		if p := there[i-1]; p.At+p.Length > there[i].At {
			return fmt.Errorf("disk %s: two pieces of its filesystem have the byte at %d", v.Name, there[i].At)
		}
	}
	return nil
}

// PiecesByPlace are the pieces in the order in which they lie on the disk.
func (v *Disk) PiecesByPlace() []Piece {
	return slices.SortedFunc(slices.Values(v.Pieces), func(a, b Piece) int { return cmp.Compare(a.At, b.At) })
}

// PiecesEnd is how large the filesystem is that lies in the pieces; 0 where it fills the
// disk.
func (v *Disk) PiecesEnd() int64 {
	if len(v.Pieces) == 0 {
		return 0
	}
	last := v.Pieces[len(v.Pieces)-1]
	return last.Offset + last.Length
}

// Fits makes sure that a layout of so many bytes has room for the pieces, and that a
// filesystem fills them.
func (v *Disk) Fits(layout, filesystem int64) error {
	if layout < v.Size || filesystem < v.PiecesEnd() {
		return fmt.Errorf("disk %s: %w: its layout has %d bytes and its filesystem %d, and they should have %d and %d",
			v.Name, ErrInvalid, layout, filesystem, v.Size, v.PiecesEnd())
	}
	return nil
}

// cleanPath reports whether p is the absolute path of a file, without control
// characters.
func cleanPath(p string) bool {
	return filepath.IsAbs(p) && filepath.Clean(p) == p && p != "/" && len(p) <= maxPath && utf8.ValidString(p) &&
		!strings.ContainsFunc(p, unicode.IsControl)
}
