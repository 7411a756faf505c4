package testserver

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// SSHServer is an sshd that root logs in to with a key.
type SSHServer struct {
	*Server
	Host       string
	Port       uint16
	Identity   string // the file of the key
	KnownHosts string // the file with the host's key

	hostKey string
}

// SSH starts OpenSSH's sshd, with its own keys and nothing of this host's.
func SSH(t testing.TB) *SSHServer {
	t.Helper()
	dir := t.TempDir()
	s := &SSHServer{
		Identity: filepath.Join(dir, "id"), KnownHosts: filepath.Join(dir, "known_hosts"),
		hostKey: filepath.Join(dir, "host"),
	}
	config := filepath.Join(dir, "sshd_config")
	address := freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	s.Host, s.Port = host, uint16(n)
	keygen(t, s.Identity)
	s.NewHostKey(t)
	public, err := os.ReadFile(s.hostKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.KnownHosts, fmt.Sprintf("[%s]:%s %s", host, port, public))
	write(t, config, fmt.Sprintf(`
ListenAddress %s
HostKey %s
AuthorizedKeysFile %s.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
MaxStartups 100
Subsystem sftp internal-sftp
`, address, s.hostKey, s.Identity))
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // sshd wants it
		t.Fatal(err)
	}
	s.Server = start(t, address, exec.Command(program(t, "/usr/sbin/sshd", "openssh-server"), "-D", "-e", "-f", config))
	return s
}

// NewHostKey gives the server another host key, for connections that come.
func (s *SSHServer) NewHostKey(t testing.TB) {
	t.Helper()
	_ = os.Remove(s.hostKey) // ssh-keygen would ask
	keygen(t, s.hostKey)
	if s.Server != nil {
		s.Restart()
	}
}

func keygen(t testing.TB, file string) {
	t.Helper()
	if out, err := exec.Command(program(t, "ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
