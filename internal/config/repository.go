package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/internal/location"
)

// checkRepositories looks at the repository and its copies: two at one place would be
// one.
func (r *reader) checkRepositories(c *Config) {
	r.checkRepository("repository", c.Repository)
	known := map[string]string{c.Repository.Path: "the repository"}
	named := map[string]bool{}
	for i, p := range c.Copies {
		key := fmt.Sprintf("copies[%d]", i)
		r.checkRepository(key, p.Repository)
		if other, ok := known[p.Path]; ok {
			r.problem(key+".path", "is where "+other+" is", "a copy needs a place of its own")
		}
		known[p.Path] = "another copy"
		if p.Verify.Every == 0 {
			r.problem(key+".verify.every", "must be longer than 0s", "mode: off turns the proofs off")
		}
		if p.Name == "" {
			continue
		}
		if !diskName.MatchString(p.Name) {
			r.problem(key+".name", fmt.Sprintf("%q is not a name", p.Name), nameForm)
		}
		if named[p.Name] {
			r.problem(key+".name", "is the name of another copy", "each copy needs a name of its own, or none")
		}
		named[p.Name] = true
	}
}

// checkRepository looks at the location, and at the keys that belong to its kind.
func (r *reader) checkRepository(at string, c Repository) {
	if _, ok := r.at[at+".password_file"]; ok { // the default lies in state
		r.checkPath(at+".password_file", c.PasswordFile)
	}
	r.checkPath(at+".credentials_file", c.CredentialsFile)
	r.checkPath(at+".ca_file", c.CAFile)
	if c.Timeout == 0 {
		r.problem(at+".timeout", "must be longer than 0s", "")
	}
	if c.SFTP != nil {
		r.checkPath(at+".sftp.identity_file", c.SFTP.IdentityFile)
		r.checkPath(at+".sftp.known_hosts", c.SFTP.KnownHosts)
	}
	if p := r.at[at+".path"]; p.value != nil && strings.Contains(c.Path, "://") && strings.Contains(c.Path, "@") {
		r.lines[p.value.Position.Line-1] = "" // it may have a password in it, and errors show lines
	}
	l, err := location.Parse(c.Path)
	var bad *location.Error
	switch {
	case errors.As(err, &bad):
		r.problem(at+".path", bad.Problem, bad.Hint)
	case l.Password != "":
		r.problem(at+".path", "has a password in it", "give RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in credentials_file")
	default:
		r.checkKind(at, c, l)
	}
}

// checkKind refuses what is for locations of other kinds.
func (r *reader) checkKind(at string, c Repository, l location.Location) {
	for _, key := range []struct {
		name  string
		given bool
		kinds []location.Kind
	}{
		{"credentials_file", c.CredentialsFile != "", []location.Kind{location.S3, location.REST}},
		{"ca_file", c.CAFile != "", []location.Kind{location.S3, location.REST}},
		{"ecc", c.ECC != 0, []location.Kind{location.Local, location.SFTP, location.S3}},
		{"sftp", c.SFTP != nil, []location.Kind{location.SFTP}},
		{"s3", c.S3 != nil, []location.Kind{location.S3}},
	} {
		if !key.given || slices.Contains(key.kinds, l.Kind) {
			continue
		}
		r.problem(at+"."+key.name, fmt.Sprintf("has no meaning where the repository is at %s", l), fmt.Sprintf("it is for %s", schemes(key.kinds)))
	}
}

// schemes writes kinds as locations begin with them.
func schemes(kinds []location.Kind) string {
	var out []string
	folder := ""
	for _, k := range kinds {
		if k == location.Local {
			folder = "folders, and for "
			continue
		}
		out = append(out, string(k)+":")
	}
	return folder + "locations of " + strings.Join(out, " and ")
}
