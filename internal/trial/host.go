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

// maxFirmware bounds the variables of a firmware, in bytes: OVMF has up to 4 MiB.
const maxFirmware = 64 << 20

func copyFirmware(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, maxFirmware+1))
	if err != nil {
		return err
	}
	if len(data) > maxFirmware {
		return fmt.Errorf("%w: %s is written to, and is larger than the variables of a firmware (%d bytes)", ErrCommand, from, maxFirmware)
	}
	return os.WriteFile(to, data, 0o600)
}
