package disktest

import (
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"os"
	"path/filepath"
	"testing"
)

// LoadSeed reads the image that [SaveSeed] put into testdata under a name.
func LoadSeed(t testing.TB, name string) Image {
	t.Helper()
	m, err := unpack(seedPath(name))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func unpack(path string) (Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return Image{}, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return Image{}, err
	}
	data, err := io.ReadAll(z)
	return Image{ReaderAt: bytes.NewReader(data), Length: int64(len(data))}, err
}

// Unpack is for examples, which have no [testing.TB]: it reads the image in a file that
// [SaveSeed] made.
func Unpack(path string) Image {
	m, err := unpack(path)
	if err != nil {
		log.Fatal(err)
	}
	return m
}

// SaveSeed keeps an image in testdata, compressed.
func SaveSeed(t testing.TB, name, image string) {
	t.Helper()
	raw, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(seedPath(name), out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func seedPath(name string) string { return filepath.Join("testdata", name+".img.gz") }
