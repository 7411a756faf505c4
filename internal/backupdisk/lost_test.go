package backupdisk_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/internal/backupdisk"
	"github.com/drydock-vm/drydock/internal/newimage"
)

// TestLostContent: where the content of a file belongs that the backup has lost there are
// no zeros but errors, and around it there is what there was.
func TestLostContent(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "skeleton"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(4 * unit); err != nil {
		t.Fatal(err)
	}
	d := backupdisk.New(&newimage.Skeleton{File: f, Size: 4 * unit, Runs: []newimage.Run{{Offset: unit, Length: unit}}}, nil)
	defer d.Close()
	for off, bad := range map[int64]bool{0: false, unit: true, 2 * unit: false, unit / 2: true} {
		if _, err := d.ReadAt(make([]byte, unit), off); bad != (err != nil) {
			t.Errorf("at %d: %v", off, err)
		}
	}
}
