package restore_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
)

// TestLongFiles: files of thousands of pieces, whose lists are not kept with the folder,
// are read as they were stored, in any order, and are the same as others with the same
// pieces alone.
func TestLongFiles(t *testing.T) {
	r, ctx := newRepo(t), t.Context()
	const pieces, size = 5000, 8
	content := func(other int) (ids []repository.ID, data []byte) {
		for i := range pieces {
			piece := fmt.Appendf(nil, "%08d", i)
			if i == other {
				piece = []byte("changed!")
			}
			id, _, err := r.SaveBlob(ctx, repository.DataBlob, piece)
			if err != nil {
				t.Fatal(err)
			}
			ids, data = append(ids, id), append(data, piece...)
		}
		return ids, data
	}
	want := map[string][]byte{}
	var nodes []repository.Node
	for name, other := range []int{-1, pieces - 1, -1, 0} { // the same ones are "0" and "2"
		n := repository.Node{Name: fmt.Sprint(name), Type: repository.NodeFile, Mode: 0o644, Size: pieces * size}
		n.Content, want[n.Name] = content(other)
		nodes = append(nodes, n)
	}
	text, err := repository.EncodeTree(nodes)
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := r.SaveTree(ctx, text)
	if err == nil {
		err = r.Flush(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	tree := openTree(t, r, &repository.Snapshot{Time: time.Unix(1e9, 0), Tree: root})
	same := map[[32]byte]string{}
	for _, name := range []string{"3", "0", "1", "1", "2"} {
		inode, err := disk.Lookup(tree, []byte(name))
		if err != nil {
			t.Fatal(err)
		}
		f, err := tree.Open(inode.Ino)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil || !bytes.Equal(got, want[name]) {
			t.Errorf("%s: %d bytes, which are others: %v", name, len(got), err)
		}
		id, ok := tree.Identity(inode.Ino)
		if !ok {
			t.Errorf("%s has no identity", name)
		}
		same[id] += name
	}
	for _, names := range same {
		if names != "3" && names != "02" && names != "11" {
			t.Errorf("%q are the same", names)
		}
	}
}
