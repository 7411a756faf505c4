package backup_test

import (
	"testing"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
)

// TestFilesystemOf: what a backup tells of a disk's filesystem, and what is no such
// tag though it begins like one.
func TestFilesystemOf(t *testing.T) {
	const uuid = "12345678123456789abc123456789abc"
	for tag, want := range map[string]string{
		"fs:data=ext4:" + uuid + ":4096:":               "ext4 ",
		"fs:data=btrfs:" + uuid + ":0:a%3A%2C%FF label": "btrfs a:,\xff label",
		"fs:data=ext4:" + uuid + ":-1:":                 "",
		"fs:data=ext4:" + uuid[1:] + ":4096:":           "",
		"fs:data=ext4:" + uuid + ":4096:%zz":            "",
		"fs:data=ext4:" + uuid + ":4096":                "",
		"fs:datas=ext4:" + uuid + ":4096:":              "",
	} {
		s := &repository.Snapshot{Tags: []string{"drydock", "fs:data=", tag}}
		f, ok := backup.FilesystemOf(s, "data")
		got := ""
		if ok {
			got = f.Type + " " + string(f.Label)
		}
		if got != want || ok && f.UUID[0] != 0x12 {
			t.Errorf("%s: %q, %+v, want %q", tag, got, f, want)
		}
	}
}
