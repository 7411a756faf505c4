// Package credentials reads the file with the login at a repository's server. It has
// one NAME=VALUE a line, with the names that restic takes from its environment:
//
//	# of an S3-compatible server
//	AWS_ACCESS_KEY_ID=…
//	AWS_SECRET_ACCESS_KEY=…
//	AWS_SESSION_TOKEN=…            of temporary keys
//	# of a REST server
//	RESTIC_REST_USERNAME=…
//	RESTIC_REST_PASSWORD=…
//
// So systemd's EnvironmentFile= and a shell's "." give the same login to restic. A
// value may stand in quotes, single or double, which are taken off; nothing in a
// value is special. No error shows a value.
package credentials

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFile bounds the file, in bytes.
const maxFile = 64 << 10

// Credentials is a login. What is not given is empty.
type Credentials struct {
	AccessKey, SecretKey, SessionToken string // of S3
	User, Password                     string // of REST
}

// String keeps secrets out of whatever prints them.
func (Credentials) String() string { return "credentials" }

// GoString does what String does, for %#v.
func (c Credentials) GoString() string { return c.String() }

// Read reads a file that only its owner, and a group, may read.
func Read(path string) (Credentials, error) {
	f, err := os.Open(path)
	if err != nil {
		return Credentials{}, fmt.Errorf("read the credentials: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	info, err := f.Stat()
	if err != nil {
		return Credentials{}, fmt.Errorf("read the credentials: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return Credentials{}, fmt.Errorf("read the credentials: everybody may read %s (chmod 600 %s)", path, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Credentials{}, fmt.Errorf("read the credentials: %w", err)
	}
	if len(data) > maxFile {
		return Credentials{}, fmt.Errorf("read the credentials: %s has more than %d bytes", path, maxFile)
	}
	c, err := parse(data)
	if err != nil {
		return Credentials{}, fmt.Errorf("read the credentials: %s:%w", path, err)
	}
	return c, nil
}

// parse reads the lines. Its errors begin with the line's number.
func parse(data []byte) (Credentials, error) {
	var c Credentials
	known := map[string]*string{
		"AWS_ACCESS_KEY_ID": &c.AccessKey, "AWS_SECRET_ACCESS_KEY": &c.SecretKey, "AWS_SESSION_TOKEN": &c.SessionToken,
		"RESTIC_REST_USERNAME": &c.User, "RESTIC_REST_PASSWORD": &c.Password,
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxFile+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		into, ok := known[name]
		switch {
		case !found:
			return c, fmt.Errorf("%d: is not NAME=VALUE", n)
		case !ok:
			// Not the name either: it may be the secret of somebody who wrote
			// something else.
			return c, fmt.Errorf("%d: is none of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD", n)
		case *into != "":
			return c, fmt.Errorf("%d: %s is there twice", n, name)
		}
		if value = unquote(value); value == "" || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return c, fmt.Errorf("%d: the value of %s is empty, or no text", n, name)
		}
		*into = value
	}
	return c, lines.Err()
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}
