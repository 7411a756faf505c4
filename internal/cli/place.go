package cli

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"sync"
	"time"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/credentials"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/location"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/backend/rest"
	"github.com/drydock-vm/drydock/internal/repository/backend/retry"
	"github.com/drydock-vm/drydock/internal/repository/backend/s3"
	"github.com/drydock-vm/drydock/internal/repository/backend/sftp"
	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
)

// credential is the name of the systemd credential that holds the login at the
// repository's server, where credentials_file is not given.
const credential = "repository.credentials"

// backend returns the place of a configured repository. Nothing is asked yet.
func (h *host) backend(c config.Repository) (backend.Backend, error) {
	l, err := location.Parse(c.Path)
	if err != nil {
		return nil, fmt.Errorf("repository.path %w", err)
	}
	var be backend.Backend
	switch l.Kind {
	case location.Local:
		return local.New(l.Path), nil
	case location.SFTP:
		be, err = sftpBackend(c, l)
	default:
		be, err = h.httpBackend(c, l)
	}
	if err != nil {
		return nil, err
	}
	return retry.New(be, retry.Options{
		Connections: c.Connections, Timeout: time.Duration(c.Timeout), Report: h.reportRetry(),
	}), nil
}

// reportRetry tells of operations that are tried again: a night that takes long
// because of its network should say so.
func (h *host) reportRetry() func(string, error, time.Duration) {
	var mu sync.Mutex // guards stderr
	return func(op string, err error, pause time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(h.app.stderr, "drydock: repository: %s: %s; trying again in %s\n", op, escape.Line(err.Error()), pause.Round(100*time.Millisecond))
	}
}

func sftpBackend(c config.Repository, l location.Location) (backend.Backend, error) {
	me, err := user.Current() // services of systemd have no $HOME
	if err != nil {
		return nil, fmt.Errorf("find out who runs drydock: %w", err)
	}
	o := sftp.Options{
		Place: l.String(), Host: l.Host, Port: l.Port, User: l.User, Path: l.Path,
		Keys:  sftp.Keys{Home: me.HomeDir, Agent: os.Getenv("SSH_AUTH_SOCK")},
		Stall: time.Duration(c.Timeout),
	}
	if o.User == "" {
		o.User = me.Username
	}
	if c.SFTP != nil {
		o.Keys.Identity = c.SFTP.IdentityFile
		if c.SFTP.KnownHosts != "" {
			o.Keys.KnownHosts = []string{c.SFTP.KnownHosts}
		}
	}
	return sftp.New(o), nil
}

// httpBackend is the place at a server of S3 or REST.
func (h *host) httpBackend(c config.Repository, l location.Location) (backend.Backend, error) {
	login, err := readCredentials(c.CredentialsFile)
	if err != nil {
		return nil, err
	}
	t := transport.Options{Connections: c.Connections, Stall: time.Duration(c.Timeout)}
	if c.CAFile != "" {
		if t.CAs, err = os.ReadFile(c.CAFile); err != nil {
			return nil, fmt.Errorf("read repository.ca_file: %w", err)
		}
	}
	tr, err := transport.HTTP(t)
	if err != nil {
		return nil, fmt.Errorf("repository.ca_file %s: %w", c.CAFile, err)
	}
	if l.Kind == location.REST {
		o := rest.Options{URL: l.URL(), User: login.User, Password: login.Password, Transport: tr}
		if o.User == "" {
			o.User = l.User
		}
		return rest.New(o), nil
	}
	o := s3.Options{
		Endpoint: l.Server(), Plain: l.Plain, Bucket: l.Bucket, Prefix: l.Path,
		AccessKey: login.AccessKey, SecretKey: login.SecretKey, Token: login.SessionToken,
		Transport: tr, Now: h.app.now,
	}
	if c.S3 != nil {
		s3Settings(&o, c.S3)
	}
	return s3.New(o)
}

func s3Settings(o *s3.Options, c *config.S3) {
	o.Region = c.Region
	o.Lookup = map[string]s3.Lookup{config.LookupPath: s3.LookupPath, config.LookupDNS: s3.LookupDNS}[c.BucketLookup]
	if c.ObjectLock != nil {
		o.Lock = s3.ObjectLock{
			Mode: map[string]s3.Retention{config.LockGovernance: s3.Governance, config.LockCompliance: s3.Compliance}[c.ObjectLock.Mode],
			For:  time.Duration(c.ObjectLock.Days) * 24 * time.Hour,
		}
	}
}

// readCredentials reads the login at the server: from the configured file, from
// systemd, or none.
func readCredentials(path string) (credentials.Credentials, error) {
	if path == "" {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return credentials.Credentials{}, nil
		}
		path = filepath.Join(dir, credential)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return credentials.Credentials{}, nil
		}
	}
	return credentials.Read(path)
}
