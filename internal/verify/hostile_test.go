package verify_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/verify"
)

// snapshot saves a tree as a backup of web.
func snapshot(t *testing.T, repo *repository.Repository, tree repository.ID) {
	t.Helper()
	check(t, repo.Flush(t.Context()))
	_, err := repo.SaveSnapshot(t.Context(), &repository.Snapshot{Time: noon, Tree: tree, Paths: []string{"/"}, Hostname: "web"})
	check(t, err)
}

func saveTree(t *testing.T, repo *repository.Repository, nodes ...repository.Node) repository.ID {
	t.Helper()
	data, err := repository.EncodeTree(nodes)
	check(t, err)
	id, _, err := repo.SaveTree(t.Context(), data)
	check(t, err)
	return id
}

func folder(name string, tree repository.ID) repository.Node {
	return repository.Node{Name: name, Type: repository.NodeDir, Subtree: &tree}
}

// Folders that share folders are more paths than there are atoms, and take as long
// as there are different folders. So do folders that lie deep.
func TestSharedFolders(t *testing.T) {
	for name, width := range map[string]int{"wide": 3, "deep": 1} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			repo, err := p.open(t, repository.Options{})
			check(t, err)
			letter := []byte("a letter")
			id, _, err := repo.SaveBlob(t.Context(), repository.DataBlob, letter)
			check(t, err)
			tree := saveTree(t, repo, repository.Node{Name: "letter", Type: repository.NodeFile, Size: uint64(len(letter)), Content: []repository.ID{id}})
			const levels = 3000
			for range levels {
				var nodes []repository.Node
				for i := range width {
					nodes = append(nodes, folder(fmt.Sprint(i), tree))
				}
				tree = saveTree(t, repo, nodes...)
			}
			snapshot(t, repo, tree)
			r := p.verified(t, verify.Options{Mode: verify.Full})
			if !r.Good() || r.Folders != levels+1 {
				t.Errorf("%d folders, good: %v", r.Folders, r.Good())
			}
			packs := repo.PackOf(repository.Blob{Type: repository.DataBlob, ID: id})
			for _, path := range p.files(t, "data") {
				if len(packs) == 1 && len(path) > 64 && path[len(path)-64:] == packs[0].String() {
					check(t, os.Remove(path))
				}
			}
			// Deeper than backups and restores go, a folder is named and not
			// followed.
			r = p.verified(t, verify.Options{Mode: verify.Quick})
			b := r.Backups[0]
			if b.Good() || !errors.Is(b.Damaged[0].Err, repository.ErrLimit) || b.More != (width > 1) || len(b.Damaged) > 1000 {
				t.Errorf("%d named, more: %v, the first: %v", len(b.Damaged), b.More, b.Damaged[0].Err)
			}
		})
	}
}

// What is damaged in one place does not make folders that are whole, and are shared
// without end, be looked through path by path.
func TestDamageBesideSharedFolders(t *testing.T) {
	p := newPlace(t)
	repo, err := p.open(t, repository.Options{})
	check(t, err)
	tree := saveTree(t, repo)
	for range 100 {
		tree = saveTree(t, repo, folder("a", tree), folder("b", tree))
	}
	lost := repository.Node{Name: "lost", Type: repository.NodeFile, Size: 1, Content: []repository.ID{repository.Hash(nil)}}
	snapshot(t, repo, saveTree(t, repo, folder("a", tree), lost))
	b := p.verified(t, verify.Options{Mode: verify.Quick}).Backups[0]
	if len(b.Damaged) != 1 || string(b.Damaged[0].Path) != "/lost" || b.More {
		t.Errorf("%+v", b)
	}
}

// What folders say that cannot be is damage of the file or folder that says it.
func TestLyingFolders(t *testing.T) {
	p := newPlace(t)
	repo, err := p.open(t, repository.Options{})
	check(t, err)
	data := []byte("content")
	id, _, err := repo.SaveBlob(t.Context(), repository.DataBlob, data)
	check(t, err)
	junk, _, err := repo.SaveBlob(t.Context(), repository.TreeBlob, []byte(`{"nodes":[{"name":"..","type":"fifo"}]}`))
	check(t, err)
	file := func(name string, size uint64, content ...repository.ID) repository.Node {
		return repository.Node{Name: name, Type: repository.NodeFile, Size: size, Content: content}
	}
	snapshot(t, repo, saveTree(t, repo,
		file("good", 7, id), file("long", 8, id), file("lost", 7, repository.Hash(nil)), folder("nothing", repository.Hash(data)),
		file("tree", 7, junk), folder("up", junk)))
	r := p.verified(t, verify.Options{Mode: verify.Quick})
	var named []string
	for _, f := range r.Backups[0].Damaged {
		named = append(named, string(f.Path))
	}
	if want := "[/long /lost /tree /nothing/ /up/]"; fmt.Sprint(named) != want {
		t.Errorf("named %v, want %s", named, want)
	}
}
