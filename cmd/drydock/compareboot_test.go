package main_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/testguest"
)

// TestCompareBoot boots a guest from its own disks and straight from its backup, in
// turn, until it is healthy: its service answers, and has read a file of 8 MiB.
func TestCompareBoot(t *testing.T) {
	benchdisk.Wanted(t)
	for name, disk := range map[string]string{"files": "mount: /var", "image": "backup: image"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", DataSize: 256 << 20})
			h.vm(g)
			text := strings.Replace(h.machine.String(), "mount: /, image: web, backup: off}", "backup: image}", 1)
			text = strings.Replace(text, "mount: /var}", disk+"}", 1)
			reads := strings.Replace(text, `/healthz"}]`, `/healthz"}, {http: "`+g.URL()+`/sha256/var/big"}]`, 1)
			set := func(text string) {
				h.machine.Reset()
				h.machine.WriteString(text)
				h.write()
			}
			set(text)
			h.run(0, "start")
			big := make([]byte, 8<<20)
			_, _ = rand.NewChaCha8([32]byte{}).Read(big[:len(big)/2]) // has no error
			must(t, g.Put(t.Context(), "/var/big", big))
			must(t, g.Fill(t.Context(), "/var/many", 7, 2000, 4000))
			must(t, g.Sync(t.Context()))
			h.run(0, "run")
			h.run(0, "stop")
			set(reads)

			var local, repository, prepare []time.Duration
			for range 3 {
				start := time.Now()
				h.run(0, "start")
				local = append(local, time.Since(start))
				h.run(0, "stop", "--kill")
				var r struct {
					Boots []struct{ Healthy, Prepare time.Duration }
				}
				h.json(&r, 0, "verify", "--mode", "boot")
				repository, prepare = append(repository, r.Boots[0].Healthy), append(prepare, r.Boots[0].Prepare)
			}
			for _, times := range [][]time.Duration{local, repository, prepare} {
				slices.Sort(times)
			}
			t.Logf("%s: local %v, repository %v, ratio %.2f; until there were disks to boot from %v",
				name, local, repository, float64(repository[1])/float64(local[1]), prepare)
		})
	}
}

// TestCompareSkeleton measures how long it takes until there is a disk to boot from, of
// which the backup has 37,000 files.
func TestCompareSkeleton(t *testing.T) {
	benchdisk.Wanted(t)
	filesystems := []string{"ext4", "xfs", "btrfs"}
	disks := ""
	for _, fstype := range filesystems {
		disks += fmt.Sprintf("      %s: {path: %s, format: raw, mount: /%[1]s}\n", fstype, benchdisk.System(t, fstype))
	}
	h := newWriterHost(t, disks)
	h.run(0, "run")
	for _, fstype := range filesystems {
		c := h.command(t.Context(), "cat", "--raw", "web/"+fstype+"@latest")
		out, err := c.StdoutPipe()
		must(t, err)
		start := time.Now()
		must(t, c.Start())
		_, err = io.ReadFull(out, make([]byte, 4096))
		must(t, err)
		took := time.Since(start)
		must(t, out.Close())
		_ = c.Wait() // nobody reads what it writes
		t.Logf("%s: %.1f s, CPU %.1f s", fstype, took.Seconds(), (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds())
	}
}
