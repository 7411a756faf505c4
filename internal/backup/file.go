package backup

import (
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// MaxFileSize is the largest file that is backed up, in bytes: the largest
	// that ext4 with its usual blocks can have. Filesystems allow names for
	// files of 8 EiB that are one hole, and each blob of one costs 67 bytes of
	// the folder's tree.
	MaxFileSize = 16 << 40
	// zeroBlob is the size of the blobs that large holes are made of: the
	// largest that a chunker cuts.
	zeroBlob = repository.MaxChunk
	// hugeHole is the length from which on a hole is made of blobs of hugeBlob: a
	// file of 16 TiB needs 35 MB of tree and not 140. Restic, which reads a
	// handful of blobs ahead, needs some 160 MB to restore one.
	hugeHole = 16 << 30
	hugeBlob = 32 << 20
	// maxLinks is how many contents of files with several names are
	// remembered. Files beyond that are read once for each name.
	maxLinks = 1 << 20
)

// file returns the node and the content of what is no folder.
func (w *walker) file(c *folder, node *repository.Node) (*repository.Node, *promise, error) {
	change := Added
	if c.old != nil {
		if change = Changed; sameMeta(c.old, node) && w.reuse[c.src] {
			change = Unchanged
		}
	}
	if node.Type != repository.NodeFile {
		w.report.file(change, 0)
		return node, nil, nil
	}
	if w.bytes += int64(node.Size); w.bytes > w.most.bytes {
		w.bytes -= int64(node.Size)
		return nil, nil, w.damaged(c.src, c.path, &disk.Error{Layer: c.src.FS.Info().Type, Structure: fmt.Sprintf("inode %d", node.Inode), Offset: -1, Err: disk.ErrLimit,
			Detail: fmt.Sprintf("files of more than %d bytes in all", w.most.bytes), Hint: "exclude some"})
	}
	var content *promise
	if change == Unchanged && w.whole(c.old, node.Size) {
		content = kept(c.old.Content)
		content.holes = c.old.Attributes[repository.AttributeHoles]
	} else {
		change = max(change, Changed)
		var err error
		if content, err = w.linked(c, node); err != nil {
			return nil, nil, w.damaged(c.src, c.path, err)
		}
	}
	node.SetAttribute(repository.AttributeHoles, content.holes)
	w.report.file(change, int64(node.Size))
	return node, content, nil
}

// whole reports whether the repository has all of a file's content.
func (w *walker) whole(old *repository.Node, size uint64) bool {
	var sum uint64
	for _, id := range old.Content {
		n, ok := w.repo.BlobSize(repository.DataBlob, id)
		if !ok {
			return false
		}
		sum += uint64(n)
	}
	return sum == size && old.Size == size
}

// linked reads a file's content, unless that was done under another name.
func (w *walker) linked(c *folder, node *repository.Node) (*promise, error) {
	id := fileID{node.DeviceID, node.Inode}
	if p := w.links[id]; p != nil {
		return p, nil
	}
	p, err := w.content(c, node)
	if err == nil && node.Links > 1 && len(w.links) < maxLinks {
		w.links[id] = p
	}
	return p, err
}

// content reads a file's content.
func (w *walker) content(c *folder, node *repository.Node) (*promise, error) {
	size := int64(node.Size)
	if size == 0 {
		return kept([]repository.ID{}), nil
	}
	f, err := c.src.FS.Open(c.ino)
	if err != nil {
		return nil, err
	}
	if size < repository.MinChunk {
		return w.small(c.src, f, size)
	}
	r := &contentReader{f: f, size: size, report: w.report}
	p := newPromise()
	for !r.done() {
		err := w.chunks(p, r)
		if err == nil {
			err = w.hole(p, r)
		}
		if err != nil {
			return nil, w.blame(err)
		}
	}
	p.holes = r.layout.record()
	p.complete()
	return p, nil
}

// hole adds the hole that r has stopped at, if any.
func (w *walker) hole(p *promise, r *contentReader) error {
	left := r.skip()
	for _, size := range []int64{hugeBlob, zeroBlob} {
		n := left / size
		if n == 0 || size == hugeBlob && left < hugeHole {
			continue
		}
		id, err := w.zeroBlob(size)
		if err != nil {
			return err
		}
		p.repeat(id, int(n))
		left -= n * size
	}
	return nil
}

// zeroBlob saves a blob of zeros, once.
func (w *walker) zeroBlob(size int64) (repository.ID, error) {
	if id, ok := w.zeros[size]; ok {
		return id, nil
	}
	id, stored, err := w.repo.SaveBlob(w.ctx, repository.DataBlob, make([]byte, size))
	if err != nil {
		return repository.ID{}, err
	}
	w.report.stored(stored)
	w.zeros[size] = id
	return id, nil
}

// blame tells the guest's errors from the repository's, which end the backup.
func (w *walker) blame(err error) error {
	var r *readError
	if errors.As(err, &r) {
		return r.err
	}
	w.cancel(err)
	return err
}

// small reads a file that is one chunk, and leaves saving it to others. Its holes
// are read as zeros, and asked for only where there are some: to ask costs as much
// as to read.
func (w *walker) small(src *Source, f disk.Sparse, size int64) (*promise, error) {
	data, err := readAll(f, size)
	if err != nil {
		return nil, err
	}
	p := newPromise()
	w.report.read(size)
	if disk.MayHaveHoles(data, src.FS.Info().BlockSize) {
		r := &contentReader{f: f, size: size, report: w.report}
		if err := r.ask(); err != nil {
			return nil, err
		}
		r.layout.data(data)
		p.holes = r.layout.record()
	}
	if err := w.put(p, &data); err != nil {
		return nil, err
	}
	p.complete()
	return p, nil
}

// readAll returns all of a file's content, which is not to be changed.
func readAll(f disk.Sparse, size int64) ([]byte, error) {
	if h, ok := f.(interface{ Bytes() ([]byte, error) }); ok { // it may be in memory
		if data, err := h.Bytes(); err != nil || int64(len(data)) == size {
			return data, err
		}
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		return nil, short(err)
	}
	return data, nil
}

// short is the error of a read that brought less than it should. That a file ends
// before its size is damage.
func short(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return &disk.Error{Layer: "file", Structure: "content", Offset: -1, Err: disk.ErrCorrupt, Detail: "it ends before its size"}
	}
	return err
}

// readError is an error of the guest's disk, on its way through the chunker.
type readError struct{ err error }

func (e *readError) Error() string { return fmt.Sprintf("read: %v", e.err) }
func (e *readError) Unwrap() error { return e.err }
