package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/internal/repository"
)

// TagProgram is the tag that every snapshot of drydock has. Beside it a snapshot
// has "vm=NAME", "round=ID" where a round made it, and for each disk
// "disk:NAME=MOUNT" and "id:NAME=HASH".
const TagProgram = "drydock"

// Find returns the snapshots of a VM that drydock made, oldest first. They may
// come with an error about others that cannot be read.
func Find(ctx context.Context, repo *repository.Repository, vm string) ([]*repository.Snapshot, error) {
	all, err := repo.Snapshots(ctx)
	return slices.DeleteFunc(all, func(s *repository.Snapshot) bool {
		return s.Hostname != vm || !slices.Contains(s.Tags, TagProgram)
	}), err
}

// DiskMount returns where a disk is in a snapshot's tree; false if it has no disk
// of that name.
func DiskMount(s *repository.Snapshot, disk string) (string, bool) {
	for _, t := range s.Tags {
		if mount, ok := strings.CutPrefix(t, "disk:"+disk+"="); ok {
			return mount, true
		}
	}
	return "", false
}

// nodesVersion changes when nodes keep more than before: what the parent lacks is
// read again. Version 2 keeps holes and flags.
const nodesVersion = 2

// identityTag is the snapshot's tag from which the next backup sees whether it
// reads the same disk.
func (s *Source) identityTag() string {
	h := sha256.New()
	uuid := s.FS.Info().UUID
	h.Write(uuid[:])
	h.Write([]byte(s.Identity))
	h.Write([]byte{0, nodesVersion})
	return "id:" + s.Disk + "=" + hex.EncodeToString(h.Sum(nil)[:8])
}

func newSnapshot(tree repository.ID, parent *repository.Snapshot, sources []Source, opts Options, r *Report) *repository.Snapshot {
	s := &repository.Snapshot{
		Time: opts.Time, Tree: tree, Paths: []string{"/"}, Hostname: opts.VM, Username: "root",
		Tags: []string{TagProgram, "vm=" + opts.VM}, ProgramVersion: opts.Program,
		Summary: r.summary(),
	}
	if opts.Round != "" {
		s.Tags = append(s.Tags, "round="+opts.Round)
	}
	for i := range sources {
		src := &sources[i]
		s.Tags = append(s.Tags, "disk:"+src.Disk+"="+src.Mount, src.identityTag())
		for _, p := range src.rules() {
			s.Excludes = append(s.Excludes, src.Disk+": "+p)
		}
	}
	if parent != nil {
		s.Parent = &parent.ID
	}
	return s
}
