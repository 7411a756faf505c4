package rebuild

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/drydock-vm/drydock/internal/atomicfile"
)

// record says which disks of a VM were restored from which backup, so that a run that
// was cut off is gone on with, also when it was cut off in its last moment. It stays:
// a disk that was written to since is another one.
type record struct {
	Backup string              `json:"backup"`
	Disks  map[string]identity `json:"disks"` // by path
}

// identity tells a file from every other, and from itself after a write: the inode
// number of a file that was removed is given to the next.
type identity struct {
	Device   uint64 `json:"device"`
	Inode    uint64 `json:"inode"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // ns since 1970
}

// maxRecord bounds a record, in bytes: 1,000 disks with the longest paths take 4 MiB.
const maxRecord = 8 << 20

func identityOf(info fs.FileInfo) identity {
	m := identity{Size: info.Size(), Modified: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		m.Device, m.Inode = uint64(st.Dev), st.Ino
	}
	return m
}

func (p *Plan) recordPath() string { return filepath.Join(p.opts.State, "restored", p.VM+".json") }

// loadRecord reads what earlier runs have restored from this backup. A record that
// cannot be understood is none.
func (p *Plan) loadRecord() error {
	p.record = record{Backup: p.Backup, Disks: map[string]identity{}}
	f, err := os.Open(p.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what was restored before: %w", err)
	}
	defer f.Close()
	var r record
	if err := json.NewDecoder(io.LimitReader(f, maxRecord)).Decode(&r); err == nil && r.Backup == p.Backup && r.Disks != nil {
		p.record = r
	}
	return nil
}

// note records the file at path as the one that is about to become the item.
func (p *Plan) note(path, item string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	p.record.Disks[item] = identityOf(info)
	text, err := json.Marshal(p.record)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.recordPath()), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(p.recordPath(), append(text, '\n'), 0o600)
}
