package repository

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// TestCompareCompression tells what each compression makes of what this host has in
// /usr/lib and in /usr/share, the first 64 MiB of each: the table in docs/repository.md.
// Times are of the processor, and without hashes.
func TestCompareCompression(t *testing.T) {
	benchdisk.Wanted(t)
	for _, folder := range []string{"/usr/lib/x86_64-linux-gnu", "/usr/share"} {
		blobs, size := blobsIn(t, folder, 64<<20)
		for _, c := range []Compression{CompressionFastest, CompressionAuto, CompressionBetter, CompressionMax} {
			key, err := crypto.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			codec, err := newCodec(key, formatCompressed, c)
			if err != nil {
				t.Fatal(err)
			}
			var buf []byte
			stored := 0
			took := threadTime(t, func() {
				for _, b := range blobs {
					buf, _ = codec.sealBlob(buf[:0], DataBlob, b)
					stored += len(buf)
				}
			})
			t.Logf("%s, %d MB, %s: %.1f %%, %.2f s", folder, size/1e6, c, 100*float64(stored)/float64(size), took.Seconds())
			if stored >= size {
				t.Errorf("%d bytes became %d", size, stored)
			}
		}
	}
}

// blobsIn returns what the files in a folder have, up to limit bytes, in pieces as a
// backup has them on average.
func blobsIn(t *testing.T, folder string, limit int) (blobs [][]byte, size int) {
	t.Helper()
	const piece = 1 << 20
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for err == nil && size < limit {
			b := make([]byte, piece)
			var n int
			if n, err = io.ReadFull(f, b); n > 0 {
				blobs, size = append(blobs, append([]byte(nil), b[:n]...)), size+n
			}
		}
		if size >= limit {
			return fs.SkipAll
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return blobs, size
}

// threadTime is what act takes of the processor, in the goroutine that calls it.
func threadTime(t *testing.T, act func()) time.Duration {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := now()
	act()
	return now() - start
}
