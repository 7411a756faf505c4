package newimage

import (
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// addLost adds to runs where the content of those files belongs that were in the backup
// when the filesystem at path was made, and cannot be read any more.
func (m *maker) addLost(path string, runs []Run) ([]Run, error) {
	l := &losses{maker: m, runs: runList{size: m.opts.Size, runs: runs}, seen: map[uint64]bool{}}
	err := m.readMade(path, func(made disk.Filesystem) error {
		l.made = made
		return l.folder(made.Info().Root, 0)
	})
	return l.runs.runs, err
}

// losses walks a filesystem for the files that are in no backup.
type losses struct {
	*maker
	made disk.Filesystem
	runs runList
	seen map[uint64]bool // folders, and files that were located
}

func (l *losses) folder(ino uint64, depth int) error {
	if depth > maxDepth || l.seen[ino] {
		return fmt.Errorf("%w: a folder is in itself, or too deep", errRuns)
	}
	l.seen[ino] = true
	entries, err := disk.List(l.made, ino)
	if err != nil {
		return ofMade(err)
	}
	for _, e := range entries {
		switch {
		case e.Type == disk.ModeDir:
			err = l.folder(e.Ino, depth+1)
		case e.Type == disk.ModeRegular && !l.found[e.Ino] && !l.seen[e.Ino]:
			l.seen[e.Ino] = true
			err = l.file(e.Ino)
		}
		if err != nil {
			return err
		}
	}
	return l.ctx.Err()
}

func (l *losses) file(ino uint64) error {
	f, err := l.made.Open(ino)
	if err != nil {
		return ofMade(err)
	}
	located, ok := f.(disk.Locator)
	if !ok {
		return errors.New("the reader does not tell where content is")
	}
	return ofMade(located.Locate(0, f.Size(), func(at disk.Location) error {
		if at.Device < 0 { // a hole
			return nil
		}
		return l.runs.add(0, at)
	}))
}
