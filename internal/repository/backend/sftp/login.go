package sftp

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Keys say which key logs in, and which keys servers have. The zero value is what
// OpenSSH does without a configuration.
type Keys struct {
	// Identity is the file of a private key; empty means those that OpenSSH looks
	// for in Home/.ssh, and the agent's.
	Identity string
	// KnownHosts are the files of host keys, of which the first is the one to add
	// to; none means Home/.ssh/known_hosts and /etc/ssh/ssh_known_hosts.
	KnownHosts []string
	// Home is the home folder.
	Home string
	// Agent is the socket of an ssh-agent; empty means there is none.
	Agent string
}

// identities are the files that OpenSSH looks for, in its order, without those that
// need hardware.
var identities = []string{"id_rsa", "id_ecdsa", "id_ed25519"}

// maxKeyFile bounds the file of a private key, in bytes. RSA of 16,384 bits has
// 13,000.
const maxKeyFile = 64 << 10

// login is the state of one login.
type login struct {
	opts    Options
	signers []ssh.Signer
	agent   net.Conn // or nil
	check   ssh.HostKeyCallback
	files   []string // of known hosts

	// What happened, since errors of package ssh do not tell.
	hostKey error // why the host key was refused
	trusted bool  // the host key was taken
}

func (k Keys) login(o Options) (*login, error) {
	l := &login{opts: o, files: k.KnownHosts}
	if len(l.files) == 0 {
		l.files = []string{filepath.Join(k.Home, ".ssh", "known_hosts"), "/etc/ssh/ssh_known_hosts"}
	}
	var there []string
	for _, f := range l.files {
		if _, err := os.Stat(f); err == nil {
			there = append(there, f)
		}
	}
	var err error
	if l.check, err = knownhosts.New(there...); err != nil {
		return nil, fmt.Errorf("%w: read the known hosts: %w", backend.ErrRefused, err)
	}
	if err := l.findKeys(k); err != nil {
		return nil, fmt.Errorf("%w: %w", backend.ErrRefused, err)
	}
	return l, nil
}

// findKeys collects what can log in.
func (l *login) findKeys(k Keys) error {
	if k.Agent != "" {
		if c, err := net.Dial("unix", k.Agent); err == nil {
			l.agent = c
		}
	}
	files := []string{k.Identity}
	if k.Identity == "" {
		files = nil
		for _, name := range identities {
			files = append(files, filepath.Join(k.Home, ".ssh", name))
		}
	}
	for _, file := range files {
		signer, err := readKey(file)
		var locked *ssh.PassphraseMissingError
		switch {
		case err == nil:
			l.signers = append(l.signers, signer)
		case errors.As(err, &locked) && l.agent != nil: // it may be the agent's
		case errors.Is(err, fs.ErrNotExist) && k.Identity == "":
		case errors.As(err, &locked) && k.Identity == "":
		default:
			l.close()
			return fmt.Errorf("read the key %s: %w", file, err)
		}
	}
	if len(l.signers) == 0 && l.agent == nil {
		return fmt.Errorf("there is no key to log in with (ssh-keygen -t ed25519 -N '' -f FILE makes one; name it in repository.sftp.identity_file, and its public half in ~/.ssh/authorized_keys of %s on %s)", l.opts.User, l.opts.Host)
	}
	return nil
}

func readKey(file string) (ssh.Signer, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("it has %d bytes, and at most %d are read", info.Size(), maxKeyFile)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others may read it (chmod 600 %s)", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("%w (use a key without one, or add it to an ssh-agent)", err)
	}
	return signer, err
}

func (l *login) close() {
	if l.agent != nil {
		_ = l.agent.Close() // nothing was written that could be lost
	}
}

func (l *login) config() *ssh.ClientConfig {
	methods := []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
		signers := slices.Clone(l.signers)
		if l.agent != nil {
			if more, err := agent.NewClient(l.agent).Signers(); err == nil {
				signers = append(signers, more...)
			}
		}
		return signers, nil
	})}
	return &ssh.ClientConfig{
		User: l.opts.User, Auth: methods,
		HostKeyCallback:   l.checkHostKey,
		HostKeyAlgorithms: l.algorithms(),
		ClientVersion:     "SSH-2.0-drydock",
	}
}

func (l *login) checkHostKey(address string, remote net.Addr, key ssh.PublicKey) error {
	err := l.check(address, remote, key)
	l.trusted = err == nil
	if err != nil {
		l.hostKey = l.hostKeyError(err, key)
	}
	return l.hostKey
}

// algorithms are those of host keys, and first the ones that are known: a server has
// several keys, and would show one that nobody has seen.
func (l *login) algorithms() []string {
	var first []string
	var known *knownhosts.KeyError
	none, err := ssh.NewPublicKey(make(ed25519.PublicKey, ed25519.PublicKeySize))
	if err == nil {
		err = l.check(l.opts.address(), &net.TCPAddr{}, none)
	}
	if errors.As(err, &known) {
		for _, k := range known.Want {
			switch t := k.Key.Type(); t {
			case ssh.KeyAlgoRSA:
				first = append(first, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			default:
				first = append(first, t)
			}
		}
	}
	supported := ssh.SupportedAlgorithms().HostKeys
	first = slices.DeleteFunc(first, func(a string) bool { return !slices.Contains(supported, a) })
	for _, a := range supported {
		if !slices.Contains(first, a) {
			first = append(first, a)
		}
	}
	return first
}

// hostKeyError says what to do about a host key that is not the known one.
func (l *login) hostKeyError(err error, key ssh.PublicKey) error {
	name := knownhosts.Normalize(l.opts.address())
	finger := ssh.FingerprintSHA256(key)
	var mismatch *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &revoked):
		return fmt.Errorf("%w: the server's host key %s is revoked in %s:%d", backend.ErrRefused, finger, revoked.Revoked.Filename, revoked.Revoked.Line)
	case !errors.As(err, &mismatch):
		return fmt.Errorf("%w: check the host key: %w", backend.ErrRefused, err)
	case len(mismatch.Want) == 0:
		return fmt.Errorf("%w: the host key %s %s of %s is not known (compare it with what ssh-keygen -lf prints on the server, then: %s >> %s)",
			backend.ErrRefused, key.Type(), finger, name, l.keyscan(key), l.files[0])
	}
	var places []string
	for _, k := range mismatch.Want {
		places = append(places, fmt.Sprintf("%s:%d", k.Filename, k.Line))
	}
	return fmt.Errorf("%w: the host key of %s has changed: it is %s %s, and not that of %s (somebody may be in between; if the server really has a new key: ssh-keygen -f %s -R '%s', then: %s >> %s)",
		backend.ErrRefused, name, key.Type(), finger, strings.Join(places, ", "), mismatch.Want[0].Filename, name, l.keyscan(key), l.files[0])
}

// keyscan is the command that prints a line for known_hosts.
func (l *login) keyscan(key ssh.PublicKey) string {
	_, port, _ := net.SplitHostPort(l.opts.address()) // it was joined here
	kind := strings.TrimPrefix(key.Type(), "ssh-")
	if strings.HasPrefix(kind, "ecdsa") {
		kind = "ecdsa"
	}
	return fmt.Sprintf("ssh-keyscan -t %s -p %s %s", kind, port, l.opts.Host)
}

// loginError is that of a connection that could not be made.
func (p *pool) loginError(l *login, err error) error {
	var network net.Error
	switch {
	case l.hostKey != nil:
		return p.fail(l.hostKey, "")
	case errors.As(err, &network) && network.Timeout():
		return p.fail(err, "is it overloaded, or no SSH server, or repository.timeout too short?")
	case errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || !l.trusted:
		return p.fail(err, "is this an SSH server?")
	}
	return p.fail(fmt.Errorf("%w: log in as %s: %w", backend.ErrRefused, p.opts.User, err),
		fmt.Sprintf("the public half of the key must be in ~/.ssh/authorized_keys of %s on %s", p.opts.User, p.opts.Host))
}
