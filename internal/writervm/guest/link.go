//go:build linux

package guest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// link is the way to drydock.
type link struct {
	from     *wire.Reader
	messages atomic.Uint64 // that came
	warnings int

	mu   sync.Mutex // guards port, for writing
	port *os.File
}

func openLink() (*link, error) {
	path, err := await(port)
	if err != nil {
		return nil, err
	}
	// As it is, blocking: the runtime has nothing else to do.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	return &link{port: f, from: wire.NewReader(bufio.NewReaderSize(f, wire.MaxData), wire.MaxToGuest)}, nil
}

func (l *link) next() (wire.Kind, []byte, error) {
	kind, payload, err := l.from.Next()
	if err != nil {
		return 0, nil, fmt.Errorf("read what to write: %w", err)
	}
	l.messages.Add(1)
	return kind, payload, nil
}

func (l *link) send(kind wire.Kind, payload ...[]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.port.Write(wire.Append(nil, kind, payload...))
	return err
}

func (l *link) complain(kind wire.Kind, path []byte, err error) error {
	c := &wire.Complaint{Path: path, Text: err.Error()}
	_ = errors.As(err, &c.Errno) // it is 0 where there is none
	return l.send(kind, wire.AppendComplaint(nil, c))
}

func (l *link) failed(err error) error {
	var path []byte
	if at := (*placeError)(nil); errors.As(err, &at) {
		path = at.path
	}
	return l.complain(wire.Failed, path, err)
}

// warn tells of a file that is not as it was asked for.
func (l *link) warn(path []byte, err error) error {
	if l.warnings++; l.warnings > wire.MaxWarnings {
		return nil
	}
	return l.complain(wire.Warning, path, err)
}

// progressPause is how often progress is told.
const progressPause = time.Second

// tellProgress tells it until stop is called.
func (l *link) tellProgress() (stop func()) {
	ticker, done, ended := time.NewTicker(progressPause), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				n := l.messages.Load() + sectorsWritten()
				if err := l.send(wire.Progress, wire.AppendNumber(nil, n)); err != nil {
					return // nobody is there any more, which the other side of the link finds too
				}
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(done)
		<-ended
	}
}

// sectorsWritten is how much went to the disk (Documentation/block/stat.rst).
func sectorsWritten() uint64 {
	const field = 6
	text, err := os.ReadFile(statistic)
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) <= field {
		return 0
	}
	n, _ := strconv.ParseUint(fields[field], 10, 64) // 0 is no progress
	return n
}

// fatal reports whether an error ends the work, because what comes next would fail too.
func fatal(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return true
	}
	switch errno {
	case unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EUCLEAN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.ESHUTDOWN:
		return true
	}
	return false
}
