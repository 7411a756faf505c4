package backup

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/pattern"
)

// The rules that are no patterns, as the report names them.
const (
	ruleInclude = "include"
	ruleCaches  = "exclude_caches"
	ruleNoDump  = "exclude_nodump"
	ruleLarger  = "exclude_larger_than"

	ruleSnapshots = "btrfs_snapshots"
)

// wanted reports whether what c stands for is backed up, and counts what is not.
func (w *walker) wanted(c *folder, inode *disk.Inode) bool {
	within, dir := c.within(c.path), inode.Type() == disk.ModeDir
	rule := c.src.excluded(within, inode)
	if rule == "" && inode.Flags&disk.FlagSubvolume != 0 && w.superseded[c.src][inode.Ino] {
		rule = ruleSnapshots
	}
	if rule == "" {
		c.included = c.included || c.src.Include.Match(within, dir) == pattern.Match
		w.chosen[c.src] = w.chosen[c.src] || c.included
		if !c.included && !(dir && c.src.Include.MayMatchBelow(within)) {
			rule = ruleInclude
		}
	}
	if rule != "" {
		w.report.leaveOut(c.src.Disk, rule, inode)
	}
	return rule == ""
}

// excluded returns the rule by which something is left out, or "".
func (s *Source) excluded(within []byte, inode *disk.Inode) string {
	if p, result := s.Exclude.Find(within, inode.Type() == disk.ModeDir); result == pattern.Match {
		return p
	}
	switch {
	case s.ExcludeNoDump && inode.Flags&disk.FlagNoDump != 0:
		return ruleNoDump
	case s.ExcludeLargerThan > 0 && inode.Type() == disk.ModeRegular && inode.Size > s.ExcludeLargerThan:
		return ruleLarger
	}
	return ""
}

// rules returns what a snapshot says was left out.
func (s *Source) rules() []string {
	list := slices.Clone(s.Exclude.Strings())
	if s.ExcludeCaches {
		list = append(list, ruleCaches)
	}
	if s.ExcludeNoDump {
		list = append(list, ruleNoDump)
	}
	if s.ExcludeLargerThan > 0 {
		list = append(list, fmt.Sprintf("%s %d", ruleLarger, s.ExcludeLargerThan))
	}
	if s.SkipSnapshots && s.FS.Info().Type == "btrfs" {
		list = append(list, ruleSnapshots)
	}
	return list
}

const (
	cacheTag       = "CACHEDIR.TAG"
	cacheSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

// cache reports whether a folder is a cache: its tag is a regular file that begins
// with the signature. One that cannot be read is none; the backup will say why.
func (w *walker) cache(f *folder, entries []disk.DirEntry) bool {
	i, found := slices.BinarySearchFunc(entries, cacheTag, byName)
	if !found {
		return false
	}
	inode, err := f.src.FS.Inode(entries[i].Ino)
	if err != nil || inode.Type() != disk.ModeRegular || inode.Size < int64(len(cacheSignature)) {
		return false
	}
	content, err := f.src.FS.Open(inode.Ino)
	if err != nil {
		return false
	}
	p := make([]byte, len(cacheSignature))
	n, _ := content.ReadAt(p, 0)
	return string(p[:n]) == cacheSignature
}

// withoutCache returns what is kept of a cache: its tag, and where something is
// mounted.
func (w *walker) withoutCache(f *folder, entries []disk.DirEntry) []disk.DirEntry {
	return slices.DeleteFunc(entries, func(e disk.DirEntry) bool {
		if string(e.Name) == cacheTag || f.mnt.child(string(e.Name)) != nil {
			return false
		}
		if inode, err := f.src.FS.Inode(e.Ino); err == nil {
			w.report.leaveOut(f.src.Disk, ruleCaches, &inode)
		}
		return true
	})
}

func byName(e disk.DirEntry, name string) int { return bytes.Compare(e.Name, []byte(name)) }
