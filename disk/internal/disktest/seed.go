package disktest

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// LoadSeed reads the image that [SaveSeed] put into testdata under a name.
func LoadSeed(t testing.TB, name string) Image {
	t.Helper()
	data, err := unpack(seedPath(name))
	if err != nil {
		t.Fatal(err)
	}
	return Image{ReaderAt: bytes.NewReader(data), Length: int64(len(data))}
}

func unpack(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// Unpack is for examples, which have no [testing.TB]: it writes the image in a file
// that [SaveSeed] made to one that is gone once it is closed.
func Unpack(path string) *os.File {
	data, err := unpack(path)
	if err != nil {
		panic(err)
	}
	f, err := os.CreateTemp("", "example")
	if err == nil {
		err = os.Remove(f.Name())
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		panic(err)
	}
	return f
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
