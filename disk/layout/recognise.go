package layout

import (
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
	"github.com/drydock-vm/drydock/disk/partition"
)

const (
	// headSize is how much of the start of a volume signatures lie in: the
	// farthest are those of ZFS, in the second 128 KiB.
	headSize = 256 << 10
	// tailSize is the same for the end: MD 0.90 is up to 128 KiB before it.
	tailSize = 128 << 10

	// floppySize is up to which size blkid takes the first of several signatures.
	floppySize = 1440 << 10
)

// ends is what is looked at of a volume: its start and its end.
type ends struct {
	d          disk.Sparse
	head, tail []byte
	tailOff    int64
}

func readEnds(d disk.Sparse) (*ends, error) {
	size := max(0, d.Size())
	e := &ends{d: d, head: make([]byte, min(headSize, size)), tail: make([]byte, min(tailSize, size))}
	e.tailOff = size - int64(len(e.tail))
	if err := ondisk.ReadFull(d, e.head, 0); err != nil {
		return nil, layer.Unreadable("start of the volume", 0, err)
	}
	if err := ondisk.ReadFull(d, e.tail, e.tailOff); err != nil {
		return nil, layer.Unreadable("end of the volume", e.tailOff, err)
	}
	return e, nil
}

// at returns n bytes at off, or nil where they are not at hand.
func (e *ends) at(off int64, n int) []byte {
	if ondisk.Within(off, int64(n), int64(len(e.head))) {
		return e.head[off : off+int64(n)]
	}
	if ondisk.Within(off-e.tailOff, int64(n), int64(len(e.tail))) {
		return e.tail[off-e.tailOff : off-e.tailOff+int64(n)]
	}
	return nil
}

// has reports whether the bytes at off are those of s.
func (e *ends) has(off int64, s string) bool { return string(e.at(off, len(s))) == s }

func (e *ends) empty() bool {
	notZero := func(b byte) bool { return b != 0 }
	return !slices.ContainsFunc(e.head, notZero) && !slices.ContainsFunc(e.tail, notZero)
}

// recognise finds out what a volume holds, by the rules of blkid(8): a container
// comes before what is in it, and of filesystems there must be one, but on what is
// as small as a floppy the first in the list is taken.
func (l *Layout) recognise(i int) {
	v := &l.volumes[i]
	if v.bytes == nil {
		return
	}
	var found []identity
	e, err := readEnds(v.bytes)
	if err == nil {
		found, err = identify(e)
	}
	switch {
	case v.Table != "":
		v.remarkTable(found) // it needs nothing else of the disk
		return
	case err != nil:
		v.fail(err)
		return
	}
	switch len(found) {
	case 0:
		v.nothing(e)
	case 1:
		v.take(found[0], i)
	default:
		v.ambiguous(found)
	}
}

// fail notes the first error of a volume.
func (v *volume) fail(err error) {
	if v.Err == nil {
		v.Err = err
	}
}

// identify returns the container or the filesystems whose signatures are there.
func identify(e *ends) ([]identity, error) {
	for _, s := range containers {
		if id, ok, err := s.find(e); err != nil || ok {
			return []identity{id}, err
		}
	}
	var found []identity
	for _, s := range filesystems {
		id, ok, err := s.find(e)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, id)
		}
	}
	if len(found) > 1 && e.d.Size() <= floppySize {
		found = found[:1]
	}
	return found, nil
}

// find reports whether the signature is there, and what stands beside it.
func (s *signature) find(e *ends) (id identity, ok bool, err error) {
	id.signature = s
	switch {
	case s.detect != nil:
		ok = s.detect(e, &id)
	case s.recognise != nil:
		ok, err = s.recognise(e.d)
	default:
		ok = e.has(s.at, s.magic)
	}
	if ok && s.details != nil {
		s.details(e, &id)
	}
	return id, ok, err
}

// take notes what a volume holds.
func (v *volume) take(id identity, i int) {
	v.Content, v.Title, v.Label, v.UUID, v.reader = id.content, id.title, id.label, id.uuid, id.open
	switch {
	case id.open != nil:
		v.devices = []int{i}
	case id.content == contentLVM && v.Kind == LogicalVolume:
		v.fail(layer.Unsupported(volumeName(v.Name), 0, imageHint, "it is a physical volume of LVM itself"))
	case id.content == contentHibernated:
		v.remark("the guest is hibernated: what it had not written yet is only in this volume")
	case !id.harmless:
		v.fail(layer.Unsupported(volumeName(v.Name), 0, imageHint, "it holds %s", id.title))
	}
}

// nothing notes that no signature is there.
func (v *volume) nothing(e *ends) {
	switch {
	case hasLVMLabel(e): // a damaged one, and nothing in its place
		v.Content, v.Title = contentLVM, "a damaged LVM physical volume"
	case e.empty():
		v.Title = "nothing: it is empty"
	case v.PartType == typeBIOSBoot:
		v.Title = "a boot loader"
	default:
		v.Title = "nothing that is recognised"
		v.remark("what it holds is not recognised")
		if table, err := partition.Read(v.bytes, 0); err == nil && table.Kind != partition.None {
			v.Title = "a partition table of its own, which is not looked into"
		}
	}
}

// ambiguous refuses a volume with several signatures.
func (v *volume) ambiguous(found []identity) {
	var names []string
	for _, id := range found {
		names = append(names, id.content)
	}
	list := strings.Join(names, " and ")
	v.Title = "what looks like " + list
	v.fail(layer.Unsupported(volumeName(v.Name), 0, "remove the one that is out of date with wipefs in the guest",
		"it has the signatures of %s at once", list))
}

// remarkTable notes a filesystem on all of a disk that also has a partition
// table.
func (v *volume) remarkTable(found []identity) {
	for _, id := range found {
		if !id.hybrid && !id.atEnd {
			v.remark("the disk has partitions, and in front of them the signature of %s, which is not used", id.title)
		}
	}
}

// typeBIOSBoot is the type of a GPT partition for GRUB's core image.
const typeBIOSBoot = "21686148-6449-6e6f-744e-656564454649"

// signature is one kind of content, and how to recognise it: by a magic string at
// an offset, by detect, or as its reader does; details then takes the label and
// the UUID, which are known even of a filesystem that cannot be opened.
type signature struct {
	content string // as blkid calls it
	title   string // for people, after "it holds"

	at        int64
	magic     string
	detect    func(e *ends, id *identity) bool
	recognise func(disk.Sparse) (bool, error)
	details   func(e *ends, id *identity)

	open     reader // nil: it is not read
	harmless bool   // nothing is lost where it is not read
	hybrid   bool   // it may lie in front of partitions on purpose
	atEnd    bool   // it may lie at the end, and so belong to the last partition
}

// identity is a signature that was found.
type identity struct {
	*signature
	label []byte
	uuid  string
}
