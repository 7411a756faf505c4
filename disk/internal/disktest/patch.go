package disktest

import "testing"

// Patched is an image some of whose bytes read as others.
type Patched struct {
	Image
	Off  int64
	Data []byte
}

// ReadAt reads what the image holds after the change.
func (p Patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.Image.ReadAt(b, off)
	if from, to := max(off, p.Off), min(off+int64(n), p.Off+int64(len(p.Data))); from < to {
		copy(b[from-off:to-off], p.Data[from-p.Off:])
	}
	return n, err
}

// Patch returns the image at path with length bytes at off changed.
func Patch(t testing.TB, path string, off int64, length int, change func([]byte)) Patched {
	t.Helper()
	p := Patched{Image: OpenImage(t, path), Off: off, Data: make([]byte, length)}
	if _, err := p.Image.ReadAt(p.Data, off); err != nil {
		t.Fatal(err)
	}
	change(p.Data)
	return p
}
