package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/copy"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
)

// fromBackup is what is known of a VM whose disks are being filled in. It is written
// before the first disk is put, and removed when all stand on their own.
type fromBackup struct {
	VM     string     `json:"vm"`
	Backup string     `json:"backup"` // its ID
	First  string     `json:"first"`  // the ID that it had at first
	Time   time.Time  `json:"time"`   // of the backup
	Since  time.Time  `json:"since"`
	Disks  []fromDisk `json:"disks"`
}

// fromDisk is one disk of it.
type fromDisk struct {
	Name string `json:"name"`
	Path string `json:"path"`
	Kept string `json:"kept"` // where the image is that was there, if there was one
	Put  bool   `json:"put"`  // a new one is in its place
}

func (h *host) fromFolder(vm string) string {
	return filepath.Join(h.config.State, "from-backup", vm)
}

const fromRecord = "record.json"

// fromBackup returns what a VM is being filled in from, or nil.
func (h *host) fromBackup(vm string) (*fromBackup, error) {
	data, err := os.ReadFile(filepath.Join(h.fromFolder(vm), fromRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	r := &fromBackup{}
	if err == nil {
		err = json.Unmarshal(data, r)
	}
	if err != nil {
		return nil, fmt.Errorf("what %s is filled in from: %w", vm, err)
	}
	return r, nil
}

// forgetUnbegun removes what was made for a VM of which no disk was put.
func (h *host) forgetUnbegun(vm string) {
	if _, err := os.Lstat(filepath.Join(h.fromFolder(vm), fromRecord)); errors.Is(err, fs.ErrNotExist) {
		_ = os.RemoveAll(h.fromFolder(vm)) // what stays is removed the next time
	}
}

// forget removes what was made for a VM. The record goes first: with it, and without what
// was made, nobody could go on.
func (h *host) forget(vm string) error {
	folder := h.fromFolder(vm)
	if err := os.Remove(filepath.Join(folder, fromRecord)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := atomicfile.SyncDir(folder); err != nil {
		return err
	}
	return os.RemoveAll(folder)
}

func (h *host) writeFromBackup(r *fromBackup) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(h.fromFolder(r.VM), fromRecord), data, 0o600)
}

// hold is why rounds leave the VM alone.
func (r *fromBackup) hold() string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("it is being filled in from backup %s: drydock start-from-backup %s goes on with that", shortID(r.Backup), r.VM)
}

// find finds the backup. It has another ID once another place has given it back, or
// somebody has changed its tags with restic.
func (r *fromBackup) find(ctx context.Context, repo *repository.Repository) (*repository.Snapshot, error) {
	s, err := restore.Find(ctx, repo, r.VM, r.Backup)
	if err == nil || ctx.Err() != nil {
		return s, err
	}
	all, _ := backup.Find(ctx, repo, r.VM) // what cannot be read is in err
	for _, s := range all {
		if r.isOf(s) {
			r.Backup = s.ID.String()
			return s, nil
		}
	}
	return nil, err
}

// isOf reports whether s is the backup, whatever ID it has now.
func (r *fromBackup) isOf(s *repository.Snapshot) bool {
	return s.Hostname == r.VM && (s.ID.String() == r.Backup || copy.Original(s).String() == cmp.Or(r.First, r.Backup))
}

// held returns what is being filled in. VMs that are not in the configuration any more
// count too.
func (h *host) held() (list []*fromBackup, err error) {
	folders, err := os.ReadDir(filepath.Join(h.config.State, "from-backup"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, folder := range folders {
		if !folder.IsDir() {
			continue
		}
		r, err := h.fromBackup(folder.Name())
		if err != nil {
			return nil, err
		}
		if r != nil {
			list = append(list, r)
		}
	}
	return list, nil
}

// refuseHeld is an error if a VM is being filled in from one of the backups.
func (h *host) refuseHeld(list []*repository.Snapshot) error {
	held, err := h.held()
	for _, r := range held {
		if i := slices.IndexFunc(list, r.isOf); i >= 0 {
			return fmt.Errorf("%s has to stay as it is: %s; nothing has changed", newBackupRef(list[i]), r.hold())
		}
	}
	return err
}

// refuseHeldUnreadable is the same of backups that cannot be read: without the file of one
// a prune takes what the VM's disks still need, which verify --repair may bring back.
func (h *host) refuseHeldUnreadable(list []repository.ID) error {
	held, err := h.held()
	for _, r := range held {
		for _, id := range list {
			if id.String() == r.Backup {
				return fmt.Errorf("%s has to stay: %s is being filled in from it (drydock verify --repair brings it back if another place has it); nothing was removed", id.Short(), escape.Line(r.VM))
			}
		}
	}
	return err
}

// heldBackups is a warning if some of the VMs keep all their backups for now.
func heldBackups(vms []round.VM) error {
	var held []error
	for _, v := range vms {
		if v.Hold != "" {
			held = append(held, fmt.Errorf("%s keeps all its backups: %s", v.Name, v.Hold))
		}
	}
	if held == nil {
		return nil
	}
	return &exitError{exitWarnings, errors.Join(held...)}
}
