package trial

import (
	"fmt"
	"io"
	"net"
	"os"
)

// freePort finds a TCP port of the loopback that nobody uses now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// maxFile bounds a file of the host, in bytes: an initial RAM disk has some 100 MB.
const maxFile = 512 << 20

// copyFile copies a file that the backup has, or the host.
func (t *trial) copyFile(from, to string) error {
	var in io.Reader
	if stored := t.Files[from]; stored != nil {
		var err error
		if in, err = stored(); err != nil {
			return err
		}
	} else {
		f, err := os.Open(from)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	n, err := io.Copy(out, io.LimitReader(in, maxFile+1))
	if err == nil && n > maxFile {
		err = fmt.Errorf("%w: it is larger than %d bytes", ErrCommand, maxFile)
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return out.Close()
}
