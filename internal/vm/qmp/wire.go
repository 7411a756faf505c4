//go:build linux

package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into sun_path of a Unix socket's address, in
// bytes, a NUL at the end not counted.
const maxSocketPath = 107

// dialUnix connects to a Unix socket. A path that is too long for an address is
// gone to by way of its folder.
func dialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	address := path
	if len(path) > maxSocketPath {
		dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", filepath.Dir(path), err)
		}
		defer unix.Close(dir)
		address = fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))
	}
	return dialPatiently(ctx, address)
}

// fullPause is how long to wait before trying again to get into a full line.
const fullPause = 20 * time.Millisecond

// dialPatiently connects, and waits for a place in the line before a socket.
// QEMU lets few wait, and a connect that would have to block is refused with
// EAGAIN (unix(7)), which the net package passes on.
func dialPatiently(ctx context.Context, address string) (*net.UnixConn, error) {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", address)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("too many others wait for it: %w", ctx.Err())
		case <-time.After(fullPause):
		}
	}
}

// reader takes messages off a connection: JSON objects, one per line.
type reader struct{ lines *bufio.Scanner }

func newReader(r io.Reader) *reader {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMessage)
	return &reader{lines}
}

// next returns the next message. Its parts are good for as long as they are
// kept. The end of the connection is [ErrClosed].
func (r *reader) next() (message, error) {
	if !r.lines.Scan() {
		err := r.lines.Err()
		switch {
		case err == nil, errors.Is(err, unix.ECONNRESET), errors.Is(err, net.ErrClosed):
			return message{}, ErrClosed
		case errors.Is(err, bufio.ErrTooLong):
			return message{}, fmt.Errorf("%w: a message of more than %d bytes", ErrProtocol, maxMessage)
		}
		return message{}, err
	}
	return parse(r.lines.Bytes())
}

// parse reads one message, which must be of exactly one of the four kinds.
func parse(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	kinds := 0
	for _, is := range []bool{m.Greeting != nil, m.Return != nil, m.Error != nil, m.Event != ""} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return message{}, fmt.Errorf("%w: a message of %d kinds", ErrProtocol, kinds)
	}
	return m, nil
}
