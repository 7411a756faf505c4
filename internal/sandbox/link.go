package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// link is the parent's end of what connects it with a worker: a socket, and
// memory that both see.
type link struct {
	socket *os.File
	// memory holds wire.Slots slots. The worker may change it at any moment.
	memory []byte
	free   chan uint8 // the numbers of the slots that are not in use
	// content is the socket over which the worker asks for bytes of disks that are
	// no file; nil where there is none.
	content *os.File
}

// newLink returns a link, and the worker's end of it as the files that the
// worker expects.
func newLink() (*link, []*os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	l := &link{socket: ours, free: make(chan uint8, wire.Slots)}
	shared, err := l.share()
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close(), l.close())
	}
	for n := range wire.Slots {
		l.free <- uint8(n + 1)
	}
	return l, []*os.File{theirs, shared}, nil
}

// serve adds the socket for content, and returns the worker's end of it.
func (l *link) serve() (theirs *os.File, err error) {
	l.content, theirs, err = socketPair()
	return theirs, err
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	// The poller waits for what comes from the worker. Whoever waited in a read would keep
	// a processor from the goroutines until the runtime notices.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make a socket: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "disk reader"), os.NewFile(uintptr(fds[1]), "disk reader"), nil
}

// share makes the memory. Its size is sealed: a worker that made it smaller
// would have the kernel kill whoever looks at the part that is gone.
func (l *link) share() (*os.File, error) {
	fd, err := unix.MemfdCreate("disk reader", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "disk reader memory")
	if err := f.Truncate(wire.Slots * wire.SlotSize); err != nil {
		return nil, errors.Join(fmt.Errorf("size shared memory: %w", err), f.Close())
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(fmt.Errorf("seal shared memory: %w", err), f.Close())
	}
	l.memory, err = unix.Mmap(fd, 0, wire.Slots*wire.SlotSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map shared memory: %w", err), f.Close())
	}
	return f, nil
}

// take copies what a slot holds to dst.
func (l *link) take(slot uint8, dst []byte) {
	copy(dst, l.memory[(int(slot)-1)*wire.SlotSize:][:wire.SlotSize])
}

// sockets are those that there are.
func (l *link) sockets() []*os.File {
	if l.content == nil {
		return []*os.File{l.socket}
	}
	return []*os.File{l.socket, l.content}
}

// hangUp makes reads from the sockets end, and the worker see its ends closed.
// Others may be using the link, so it leaves the rest to close.
func (l *link) hangUp() {
	for _, s := range l.sockets() {
		if raw, err := s.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		}
	}
}

// close releases everything. Nobody uses the link any more.
func (l *link) close() error {
	var err error
	for _, s := range l.sockets() {
		err = errors.Join(err, s.Close())
	}
	if l.memory != nil {
		err = errors.Join(err, unix.Munmap(l.memory))
	}
	return err
}
