package find

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/pattern"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

type store struct {
	*testing.T
	*repository.Repository
}

func newStore(t *testing.T) store {
	t.Helper()
	r, err := repository.Create(t.Context(), local.New(filepath.Join(t.TempDir(), "repo")), []byte("x"),
		repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return store{t, r}
}

// tree saves a folder. Nodes come in the order of their names.
func (s store) tree(nodes ...repository.Node) repository.ID {
	s.Helper()
	data, err := repository.EncodeTree(nodes)
	if err != nil {
		s.Fatal(err)
	}
	id, _, err := s.SaveTree(s.Context(), data)
	if err != nil {
		s.Fatal(err)
	}
	return id
}

func dir(name string, id repository.ID) repository.Node {
	return repository.Node{Name: name, Type: repository.NodeDir, Mode: fs.ModeDir | 0o755, Subtree: &id}
}

func file(name string, size uint64) repository.Node {
	return repository.Node{Name: name, Type: repository.NodeFile, Size: size, Content: []repository.ID{}, ModTime: time.Unix(1e9, 0)}
}

func (s store) search(p string, roots []repository.ID) (lines []string, f *finder[repository.ID], err error) {
	s.Helper()
	if err := s.Flush(s.Context()); err != nil {
		s.Fatal(err)
	}
	names, err := pattern.Compile([]string{p})
	if err != nil {
		s.Fatal(err)
	}
	f = &finder[repository.ID]{ctx: s.Context(), from: stored{s.Context(), s.Repository}}
	f.opts = Options{Names: names, Damaged: func(path []byte, _ error) { lines = append(lines, "!"+string(path)) }}
	f.found = func(f *File) error {
		line := string(f.Path)
		for _, v := range f.Versions {
			line += fmt.Sprintf(" %d%v", v.Node.Size, v.Snapshots)
		}
		lines = append(lines, line)
		return nil
	}
	in := trees[repository.ID]{}
	for i, r := range roots {
		in.add(r, i)
	}
	err = f.folder(nil, in, 0)
	return lines, f, err
}

// TestTreesAreReadOnce: of many snapshots that have most in common, each different
// folder is read once.
func TestTreesAreReadOnce(t *testing.T) {
	s := newStore(t)
	var folders []repository.Node
	for i := range 100 {
		folders = append(folders, dir(fmt.Sprintf("d%02d", i), s.tree(file("f", uint64(i)))))
	}
	usr := s.tree(folders...)
	var roots []repository.ID
	for night := range 40 {
		roots = append(roots, s.tree(file("log", uint64(night/10)), dir("usr", usr)))
	}
	lines, f, err := s.search("f", roots)
	if err != nil || len(lines) != 100 || !strings.HasPrefix(lines[7], "/usr/d07/f 7[0 1 2 ") || !strings.HasSuffix(lines[7], " 39]") {
		t.Errorf("%d lines, %q, %v", len(lines), lines[:min(len(lines), 8)], err)
	}
	if want := 4 + 1 + 100; f.read != want {
		t.Errorf("%d folders were read, want %d", f.read, want)
	}
	if f.held != 0 {
		t.Errorf("%d bytes are still held", f.held)
	}
	if lines, _, err = s.search("/log", roots[8:12]); err != nil || len(lines) != 1 || lines[0] != "/log 0[0 1] 1[2 3]" {
		t.Errorf("%q, %v", lines, err)
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	s := newStore(t)
	root := s.tree(dir("a", repository.Hash([]byte("lost"))), file("f", 1), dir("z", s.tree(file("f", 2))))
	lines, _, err := s.search("f", []repository.ID{root})
	if got := strings.Join(lines, "; "); err != nil || got != "!/a; /f 1[0]; /z/f 2[0]" {
		t.Errorf("%q, %v", got, err)
	}
	deep := s.tree(file("f", 1))
	for range maxDepth + 10 {
		deep = s.tree(dir("d", deep), file("g", 1))
	}
	lines, _, err = s.search("g", []repository.ID{deep})
	if n := len(lines); err != nil || n != maxDepth+2 || !strings.HasPrefix(lines[0], "!/d/d/") || lines[n-1] != "/g 1[0]" {
		t.Errorf("%d lines, %v", n, err)
	}
	// More than is held at once ends the search, and says so.
	f := &finder[repository.ID]{held: maxHeld}
	if err := (store{t, s.Repository}).over(f, root); !errors.Is(err, ErrTooMuch) {
		t.Errorf("error %v, want %v", err, ErrTooMuch)
	}
}

// over reads a folder with a finder that is full.
func (s store) over(f *finder[repository.ID], id repository.ID) error {
	f.ctx, f.from = s.Context(), stored{s.Context(), s.Repository}
	return f.tree(nil, tree[repository.ID]{id, []int{0}}, map[string]*entry[repository.ID]{})
}
