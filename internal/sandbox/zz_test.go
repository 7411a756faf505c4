package sandbox

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
)

func TestZZ(t *testing.T) {
	path := benchdisk.System(t, "ext4")
	for range 8 {
		t0 := time.Now()
		r := start(t, path, DiskSpec{Format: Raw})
		t1 := time.Now()
		fs, err := r.Filesystem(t.Context(), filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		t2 := time.Now()
		readTree(fs, true)
		t3 := time.Now()
		r.Close()
		t4 := time.Now()
		t.Log(t1.Sub(t0), t2.Sub(t1), t3.Sub(t2), t4.Sub(t3), r.client.process.cmd.ProcessState.UserTime(), r.client.process.cmd.ProcessState.SystemTime())
	}
}
