package qcow2_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// BenchmarkSequentialRead reads an image of 128 MiB from end to end, three
// quarters of it text-like, in large and in small pieces.
func BenchmarkSequentialRead(b *testing.B) {
	const size = 128 << 20
	from := filepath.Join(b.TempDir(), "source")
	data := make([]byte, size)
	for i := range data {
		if i%4096 < 3072 {
			data[i] = "all hands on deck; "[i%19]
		} else {
			data[i] = byte(i * i >> 7)
		}
	}
	if err := os.WriteFile(from, data, 0o600); err != nil {
		b.Fatal(err)
	}
	for _, v := range []struct {
		name string
		args []string
	}{
		{"uncompressed", nil},
		{"zlib", []string{"-c"}},
		{"zstd", []string{"-c", "-o", "compression_type=zstd"}},
	} {
		path := filepath.Join(b.TempDir(), "disk.qcow2")
		args := append([]string{"convert", "-f", "raw", "-O", "qcow2"}, v.args...)
		disktest.Run(b, "qemu-img", append(args, from, path)...)
		for _, piece := range []int{4 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dk", v.name, piece>>10), func(b *testing.B) {
				f, length := disktest.OpenFile(b, path)
				buf := make([]byte, piece)
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					im, err := qcow2.Open(f, length, qcow2.Options{})
					if err != nil {
						b.Fatal(err)
					}
					for off := int64(0); off < size; off += int64(piece) {
						if _, err := im.ReadAt(buf, off); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}
