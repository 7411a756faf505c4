package nbd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drydock-vm/drydock/disk"
)

// zeros is a disk of one hole that says it is data.
type zeros int64

func (z zeros) Size() int64 { return int64(z) }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	return len(p), nil
}

func (z zeros) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length})
}

// TestTimeouts has clients that stop in the middle of everything, and measures,
// in a time of its own, how long they keep their connection.
func TestTimeouts(t *testing.T) {
	begin := append([]byte{0, 0, 0, 3}, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00"...)
	read := []byte("\x25\x60\x95\x13\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00")
	write := []byte("\x25\x60\x95\x13\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00")
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		say  []byte
		hear int64 // bytes that are taken
		want time.Duration
	}{
		"takes nothing":    {nil, 0, handshakeTimeout},
		"says nothing":     {nil, 18, handshakeTimeout},
		"half an option":   {begin[:10], 18, handshakeTimeout},
		"between requests": {begin, 18 + 10, day},
		"half a request":   {append(bytes.Clone(begin), read[:27]...), 18 + 10, stallTimeout},
		"half a write":     {append(bytes.Clone(begin), write...), 18 + 10, stallTimeout},
		"takes no reply":   {append(bytes.Clone(begin), read...), 18 + 10, stallTimeout},
		"half a reply":     {append(bytes.Clone(begin), read...), 18 + 10 + 100, stallTimeout},
		"takes the reply":  {append(bytes.Clone(begin), read...), 18 + 10 + 16 + 1<<20, day},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go theirs.Write(c.say)
				go io.CopyN(io.Discard, theirs, c.hear)
				time.AfterFunc(day, func() { theirs.Close() })
				start := time.Now()
				err := serveConn(ours, []Export{{Disk: zeros(1 << 20)}}, func(err error) { t.Error(err) })
				if took := time.Since(start); took != c.want {
					t.Errorf("it ends after %v, want %v", took, c.want)
				}
				if timeout := errors.Is(err, os.ErrDeadlineExceeded); timeout != (c.want < day) {
					t.Errorf("it ends with %v", err)
				}
				theirs.Close()
			})
		})
	}
}
