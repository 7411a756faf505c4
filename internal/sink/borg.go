package sink

import "time"

// BorgOptions say where borg keeps its archives.
type BorgOptions struct {
	Name string // in reports; "" means "borg"
	// Repository is borg's: a folder, or ssh://USER@HOST:PORT/PATH. It must have
	// been made with borg init.
	Repository string
	// Passphrase is the file that holds the repository's passphrase; "" for a
	// repository without encryption.
	Passphrase string
	// Args are further arguments of borg create, such as --compression zstd.
	Args    []string
	Timeout time.Duration
}

// Borg returns borg create (1.1 and later) over the disks' folders: the archive
// VM-TIME, with one folder for each disk. Borg sees owners as numbers, xattrs,
// ACLs, capabilities and hardlinks; holes become zeros. Its cache of files goes by
// ctime, size and inode, as it does over any filesystem.
func Borg(o BorgOptions) Program {
	p := Program{
		Name: o.Name, Input: Folder, Timeout: o.Timeout, Secret: o.Passphrase,
		// Borg ends with 1 when all is stored but for what it has named.
		Warn: []int{1},
		Env: []string{
			"BORG_REPO=" + o.Repository,
			// A question would never be answered.
			"BORG_RELOCATED_REPO_ACCESS_IS_OK=no", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
		},
	}
	if p.Name == "" {
		p.Name = "borg"
	}
	if o.Passphrase != "" {
		p.Env = append(p.Env, "BORG_PASSPHRASE_FD=3")
	}
	p.Args = append([]string{"borg", "create", "--numeric-ids", "--files-cache=ctime,size,inode"}, o.Args...)
	p.Args = append(p.Args, "::{vm}-{time}", ".")
	return p
}
