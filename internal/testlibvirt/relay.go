//go:build linux

package testlibvirt

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
)

// Relay returns a socket at which the daemon answers, for as long as pass says so: it is
// told the procedure of each request before the daemon hears of it, as remote_protocol.x
// numbers them, and may take its time. When it says no the connection ends.
func (l *Libvirt) Relay(pass func(procedure uint32) bool) (socket string) {
	l.t.Helper()
	socket = filepath.Join(l.t.TempDir(), "socket")
	at, err := net.Listen("unix", socket)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { at.Close() })
	go func() {
		for {
			client, err := at.Accept()
			if err != nil {
				return // the test has ended
			}
			daemon, err := net.Dial("unix", l.Socket)
			if err != nil {
				client.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(client, daemon) // until one of them ends
				client.Close()
			}()
			go func() {
				defer daemon.Close()
				for {
					request, err := message(client)
					if err != nil || !pass(binary.BigEndian.Uint32(request[12:])) {
						return
					}
					if _, err := daemon.Write(request); err != nil {
						return
					}
				}
			}()
		}
	}()
	return socket
}

// message reads a message of libvirt's protocol: its length, program, version, procedure,
// type, serial and status (virnetprotocol.x), and what belongs to it.
func message(r io.Reader) ([]byte, error) {
	head := make([]byte, 28)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	rest := make([]byte, max(binary.BigEndian.Uint32(head), 28)-28)
	_, err := io.ReadFull(r, rest)
	return append(head, rest...), err
}
