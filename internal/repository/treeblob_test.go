package repository

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

func decodeTree(data []byte) ([]Node, error) { return (&Tree{text: data}).Nodes() }

// referenceTree reads a tree with encoding/json alone, as restic does.
func referenceTree(data []byte) (nodes []Node, err error) {
	type contentNode struct {
		nodeJSON
		Content []ID `json:"content"`
	}
	w := newJSONWalker(bytes.NewReader(data))
	last := ""
	err = w.object(func(key string) error {
		if key != "nodes" {
			return w.skip()
		}
		return w.array(func() error {
			var j contentNode
			if err := w.value(&j); err != nil {
				return err
			}
			n, err := j.node(j.Content, 0)
			if err == nil && n.Name <= last {
				err = errors.New("out of order")
			}
			nodes, last = append(nodes, n), n.Name
			return err
		})
	})
	return nodes, errors.Join(err, w.end())
}

// FuzzTreeReader: what is read is what encoding/json reads, however the stream comes in
// pieces. It may refuse more: content that is no array of IDs, and what comes twice.
func FuzzTreeReader(f *testing.F) {
	tree, err := EncodeTree([]Node{fullNode(), {Name: "b", Type: NodeDir, Subtree: &someID}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tree.Bytes())
	f.Add([]byte(` { "x" : [ 1 , { "a" : "\\"" } , null ] , "nodes" : [ { "name" : "n" , "type" : "file" , "content" : [ ] } ] } `))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeTree(data)
		var pieces []Node
		perr := newTreeReader(iotest.OneByteReader(bytes.NewReader(data)), len(data)).walk(func(n *Node) error {
			pieces = append(pieces, *n)
			return nil
		})
		if (err == nil) != (perr == nil) || err == nil && !reflect.DeepEqual(got, pieces) {
			t.Fatalf("%v; byte for byte: %v\n%s", err, perr, cmp.Diff(got, pieces))
		}
		if err != nil {
			return
		}
		want, err := referenceTree(data)
		if err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		for i := range want { // of which the space stays
			for key, value := range want[i].Attributes {
				var b bytes.Buffer
				if err := json.Compact(&b, value); err != nil {
					t.Fatal(err)
				}
				want[i].Attributes[key] = b.Bytes()
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("encoding/json reads something else (-want +got):\n%s", diff)
		}
	})
}

// manyIDs are n IDs of which no two are the same.
func manyIDs(n int) []ID {
	ids := make([]ID, n)
	for i := range ids {
		ids[i] = Hash(binary.LittleEndian.AppendUint64(nil, uint64(i)))
	}
	return ids
}

func newMemoryRepository(t *testing.T) *Repository {
	t.Helper()
	r, err := Create(t.Context(), &memory.Backend{}, []byte("x"), CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// disks are the nodes of a folder with images of disks.
func disks(sizes ...int) (nodes []Node) {
	for i, n := range sizes {
		ids := manyIDs(n)
		if i%2 == 1 {
			ids = slices.Repeat([]ID{someID}, n)
		}
		nodes = append(nodes, Node{Name: fmt.Sprintf("disk%d", i), Type: NodeFile, Size: uint64(n), Content: ids})
	}
	return nodes
}

// TestLargeTree: long lists of blobs, alone and beside each other, are stored as
// encoding/json would write them, and come back.
func TestLargeTree(t *testing.T) {
	for _, sizes := range [][]int{
		{0}, {longContent - 1}, {longContent}, {longContent + 1, 3, longContent, longContent}, {100_000}, {3, 100_000},
		{400_000, 20, 100_000, 5000}, {2, 100_000, 1},
	} {
		r, nodes := newMemoryRepository(t), disks(sizes...)
		tree, err := EncodeTree(nodes)
		if err != nil {
			t.Fatal(err)
		}
		id, stored, err := r.SaveTree(t.Context(), tree)
		if err != nil || stored == 0 {
			t.Fatalf("%d blobs: %d bytes, %v", sizes, stored, err)
		}
		if again, stored, err := r.SaveTree(t.Context(), tree); again != id || stored != 0 || err != nil {
			t.Errorf("%d blobs, again: %v, %d bytes, %v", sizes, again, stored, err)
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := []byte(treeStart)
		for i := range nodes {
			want = append(want, reference(t, nodes[i])...)
			want = append(want, ',')
		}
		want = append(want[:len(want)-1], treeEnd...)
		data, err := r.LoadBlob(t.Context(), TreeBlob, id, nil)
		if err != nil || !bytes.Equal(data, want) || tree.Size() != len(want) {
			t.Fatalf("%d blobs: stored are %d bytes, want %d, told %d, %v", sizes, len(data), len(want), tree.Size(), err)
		}
		back, err := r.LoadTree(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := back.Nodes(); err != nil || !reflect.DeepEqual(got, nodes) {
			t.Errorf("%d blobs: something else came back: %d nodes, %v", sizes, len(got), err)
		}
		testLists(t, back, nodes)
		if copied, _, err := newMemoryRepository(t).SaveTree(t.Context(), back); err != nil || copied != id {
			t.Errorf("%d blobs: the copy is %v, %v", sizes, copied, err)
		}
	}
}

// testLists: a walk that calls for each blob has all of them in order, before their node. A
// brief one has a hash of long lists, which is the same for the same list alone.
func testLists(t *testing.T, tree *Tree, want []Node) {
	t.Helper()
	var blobs []ID
	next := 0
	err := tree.WalkPieces(func(id ID) error {
		blobs = append(blobs, id)
		return nil
	}, func(n *Node) error {
		if w := want[next]; n.Name != w.Name || n.Long != len(w.Content) || len(n.Content) != 0 || !slices.Equal(blobs, w.Content) {
			t.Errorf("node %d, of %d blobs: %q, %d blobs, %d of them in it; %d came", next, len(w.Content), n.Name, n.Long, len(n.Content), len(blobs))
		}
		blobs, next = blobs[:0], next+1
		return nil
	})
	if err != nil || next != len(want) {
		t.Errorf("%d nodes of %d, %v", next, len(want), err)
	}
	known := map[ID]int{}
	next = 0
	err = tree.WalkBrief(func(n *Node) error {
		w := want[next]
		next++
		if len(w.Content) < longContent {
			if !reflect.DeepEqual(*n, w) {
				t.Errorf("%+v, want %+v", n, w)
			}
			return nil
		}
		if n.Long != len(w.Content) || len(n.Content) != 1 {
			t.Fatalf("%q has %d blobs, and %d in it", n.Name, n.Long, len(n.Content))
		}
		if before, there := known[n.Content[0]]; there && !slices.Equal(want[before].Content, w.Content) {
			t.Errorf("%q has the hash of %q", n.Name, want[before].Name)
		}
		known[n.Content[0]] = next - 1
		if _, err := EncodeTree([]Node{*n}); err == nil {
			t.Errorf("%q is encoded without its blobs", n.Name)
		}
		return nil
	})
	if err != nil || next != len(want) {
		t.Errorf("brief: %d nodes of %d, %v", next, len(want), err)
	}
	if err := tree.WalkPieces(func(ID) error { return errHash }, func(*Node) error { return nil }); len(want[0].Content) > 0 && err != errHash {
		t.Errorf("an error of who takes blobs: %v", err)
	}
}

// TestLargeTreeMemory: what is allocated for a list of half a million blobs is little
// more than the IDs themselves and the tree as it is stored, of which each is half as much
// as the JSON.
func TestLargeTreeMemory(t *testing.T) {
	r, nodes := newMemoryRepository(t), disks(500_000)
	var id ID
	const limit = 500_000*2*36 + 8<<20
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"save", func() error {
			tree, err := EncodeTree(nodes)
			if err != nil {
				return err
			}
			id, _, err = r.SaveTree(t.Context(), tree)
			return errors.Join(err, r.Flush(t.Context()))
		}},
		{"load", func() error {
			list, err := r.Children(t.Context(), id, "disk0")
			if err == nil && !slices.Equal(list[0].Content, nodes[0].Content) {
				err = errors.New("it is another list")
			}
			return err
		}},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > limit {
			t.Errorf("%s: %d bytes were allocated, more than %d", step.name, took, limit)
		}
	}
}

// TestLargeTreeThatLies: a large tree that is not what its ID says, or not as long as the
// index says, is damage, and nobody sees a node of it.
func TestLargeTreeThatLies(t *testing.T) {
	tree, err := EncodeTree(disks(2*largeTree/quotedID + 1000))
	if err != nil {
		t.Fatal(err)
	}
	id, size, err := tree.hash()
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]struct {
		id   ID
		size int
		cut  int // bytes off the end of the compressed stream
	}{
		"another ID": {someID, int(size), 0},
		"longer":     {id, int(size) + 1, 0},
		"shorter":    {id, int(size) - 1, 0},
		"half":       {id, int(size) / 2, 0},
		"cut":        {id, int(size), 1000},
	} {
		r := newMemoryRepository(t)
		sealed, compressed, err := r.codec.sealTree(tree)
		if err != nil || !compressed {
			t.Fatal(compressed, err)
		}
		if lie.cut > 0 {
			plain, err := r.codec.key.Open(sealed)
			if err != nil {
				t.Fatal(err)
			}
			sealed = r.codec.key.Seal(nil, plain[:len(plain)-lie.cut])
		}
		if mine, err := r.claim(t.Context(), blobKey{TreeBlob, lie.id}, size); err != nil || !mine {
			t.Fatal(mine, err)
		}
		if _, err := r.add(t.Context(), TreeBlob, lie.id, sealed, lie.size, true); err != nil {
			t.Fatal(err)
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := r.LoadTree(t.Context(), lie.id); !errors.Is(err, ErrDamaged) || got != nil {
			t.Errorf("%s: there is a tree: %t, %v", name, got != nil, err)
		}
	}
}

// TestTreeStreamFails: a stream that fails is no end.
func TestTreeStreamFails(t *testing.T) {
	broken := errors.New("broken")
	rd := io.MultiReader(bytes.NewReader([]byte(`{"nodes":[`+node("a", "")+`]}`)), iotest.ErrReader(broken))
	if err := newTreeReader(rd, 1000).walk(func(*Node) error { return nil }); !errors.Is(err, broken) {
		t.Errorf("it ends with %v", err)
	}
}
