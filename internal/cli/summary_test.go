package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/round"
)

const mixedConfig = `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repo, password_file: %[1]s/key}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      root: {path: %[1]s/root.raw, format: raw, mount: /}
      store: {path: %[1]s/store.raw, format: raw, backup: image}
`

// resticStats is what restic counts of snapshots.
type resticStats struct {
	Size  int64 `json:"total_size"`
	Blobs int64 `json:"total_blob_count"`
}

func (w *world) stats(mode string, snapshots ...string) (s resticStats) {
	w.t.Helper()
	out := w.restic(append([]string{"stats", "-q", "--json", "--mode", mode}, snapshots...)...)
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		w.t.Fatalf("%v in %s", err, out)
	}
	return s
}

// uncompressed is what all blobs have before compression, as restic shows the index.
func (w *world) uncompressed() (total int64) {
	w.t.Helper()
	for id := range strings.Lines(w.restic("list", "index", "-q")) {
		var index struct {
			Packs []struct {
				Blobs []struct {
					Length       int64
					Uncompressed int64 `json:"uncompressed_length"`
				}
			}
		}
		if err := json.Unmarshal([]byte(w.restic("cat", "index", strings.TrimSpace(id), "-q")), &index); err != nil {
			w.t.Fatal(err)
		}
		for _, p := range index.Packs {
			for _, b := range p.Blobs {
				const seal = 32 // of a blob that is stored as it is
				total += cmp.Or(b.Uncompressed, b.Length-seal)
			}
		}
	}
	return total
}

// summary is that of the newest snapshot, and its ID. Restic 0.14 does not show it.
func (w *world) summary() (string, *repository.SnapshotSummary) {
	w.t.Helper()
	out, _ := w.run(0, "backups", "show", "web@latest", "--json")
	var d backupDetails
	if err := json.Unmarshal([]byte(out), &d); err != nil || d.Summary == nil {
		w.t.Fatalf("%s, %v", out, err)
	}
	return d.ID, d.Summary
}

// TestSummaries: what a snapshot tells of itself, with the files of one disk and the
// image of another, is what restic counts in it.
func TestSummaries(t *testing.T) {
	w := newWorld(t)
	base := filepath.Dir(w.config)
	w.twoDisks()
	write(t, w.config, fmt.Sprintf(mixedConfig, base))
	image := filepath.Join(base, "store.raw")
	store := func(n int) {
		t.Helper()
		content := make([]byte, 4<<20)
		copy(content, bytes.Repeat([]byte("a row of the database\n"), n))
		if err := os.WriteFile(image, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	store(1000)
	w.backupDisks()
	first, s := w.summary()
	raw, whole := w.stats("raw-data", first), w.stats("restore-size", first)
	if blobs := int64(s.DataBlobs + s.TreeBlobs); blobs != raw.Blobs || s.DataBlobs == 0 || s.TreeBlobs == 0 || int64(s.DataAdded) != w.uncompressed() {
		t.Errorf("%d and %d blobs of %d bytes, restic counts %+v", s.DataBlobs, s.TreeBlobs, s.DataAdded, raw)
	}
	// A blob has 37 or 41 bytes in its pack's header, which stats does not count.
	if header := int64(s.DataAddedPacked) - raw.Size; header < 37*raw.Blobs || header > 41*raw.Blobs {
		t.Errorf("%d bytes packed, restic counts %d", s.DataAddedPacked, raw.Size)
	}
	if int64(s.TotalBytesProcessed) != whole.Size || s.TotalBytesProcessed < 4<<20 {
		t.Errorf("%d bytes processed, restic counts %+v", s.TotalBytesProcessed, whole)
	}
	if s.FilesNew != s.TotalFilesProcessed || s.FilesChanged+s.FilesUnmodified != 0 || s.FilesNew < 5 {
		t.Errorf("the first: %+v", s)
	}
	if s.BackupStart.Before(begin.Add(-time.Second)) || s.BackupEnd.Before(s.BackupStart) || s.BackupEnd.After(time.Now()) {
		t.Errorf("from %v to %v", s.BackupStart, s.BackupEnd)
	}

	w.backupDisks()
	if _, s := w.summary(); s.FilesNew != 0 || s.FilesUnmodified+s.FilesChanged != s.TotalFilesProcessed || s.FilesUnmodified == 0 || s.DataBlobs > 2 {
		t.Errorf("nothing was changed: %+v", s)
	}
	before, uncompressed := w.stats("raw-data"), w.uncompressed()
	store(60000)
	w.backupDisks()
	_, s = w.summary()
	after := w.stats("raw-data")
	if blobs := int64(s.DataBlobs + s.TreeBlobs); blobs != after.Blobs-before.Blobs || int64(s.DataAdded) != w.uncompressed()-uncompressed {
		t.Errorf("after a change: %+v, restic counts %+v after %+v", s, after, before)
	}
	if s.FilesNew != 0 || s.FilesChanged == 0 {
		t.Errorf("after a change: %+v", s)
	}
	var list []backupLine
	out, _ := w.run(0, "backups", "list", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 3 || list[0].Stored != s.DataAddedPacked || list[0].Bytes != s.TotalBytesProcessed {
		t.Errorf("%+v, %v", list, err)
	}
	if d := list[0].Disks; len(d) != 2 || d[0].Mode != "files" || d[0].Mount != "/" || d[1].Mode != "image" || d[1].Name != "store" {
		t.Errorf("the disks are %+v", d)
	}
	if out, _ := w.run(0, "backups", "list"); !strings.Contains(out, " root, store (image)  ") {
		t.Errorf("backups list: %s", out)
	}
	// 1.3 MB of rows lie in 21 segments of 64 KiB.
	out, _ = w.run(0, "backups", "show", "web@latest")
	for _, want := range []string{"store: image of 4.0 MiB, 1.3 MiB of it data\n", "root: files at /, of ext4 of 16.0 MiB\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("backups show has no %q: %s", want, out)
		}
	}
}

func TestSizeCell(t *testing.T) {
	images := []round.ImageBackup{{Size: 10 << 30}, {Size: 1 << 30}}
	around := []round.ImageBackup{{Size: 2 << 30, Layout: true}}
	for want, b := range map[string]*round.BackupReport{
		"-": nil, "0 B": {}, "1.0 MiB": {BytesTotal: 1 << 20},
		"11.0 GiB image":           {BytesTotal: 11 << 30, Images: images},
		"1.0 MiB + 11.0 GiB image": {BytesTotal: 1<<20 + 11<<30, Images: images},
		"3.0 MiB":                  {BytesTotal: 3<<20 + 2<<30, Images: around}, // what is around files is no image to anybody
	} {
		if got := sizeCell(b); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
