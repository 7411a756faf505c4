package location_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/location"
)

var valid = map[string]location.Location{
	"/srv/backup":       {Kind: location.Local, Path: "/srv/backup"},
	"local:/srv/backup": {Kind: location.Local, Path: "/srv/backup"},
	"backup":            {Kind: location.Local, Path: "backup"},
	"./a:b":             {Kind: location.Local, Path: "a:b"},
	"local:s3:x":        {Kind: location.Local, Path: "s3:x"},
	"/srv//b/../sftp:x": {Kind: location.Local, Path: "/srv/sftp:x"},

	"sftp:me@host:/srv/repo":              {Kind: location.SFTP, User: "me", Host: "host", Path: "/srv/repo"},
	"sftp:host:repo":                      {Kind: location.SFTP, Host: "host", Path: "repo"},
	"sftp:me@realm@host:/srv/":            {Kind: location.SFTP, User: "me@realm", Host: "host", Path: "/srv"},
	"sftp:me@[::1]:/srv":                  {Kind: location.SFTP, User: "me", Host: "::1", Path: "/srv"},
	"sftp://me@host:2222//srv/repo":       {Kind: location.SFTP, User: "me", Host: "host", Port: 2222, Path: "/srv/repo"},
	"sftp://host:2222/repo":               {Kind: location.SFTP, Host: "host", Port: 2222, Path: "repo"},
	"sftp://host//srv/a%20b":              {Kind: location.SFTP, Host: "host", Path: "/srv/a b"},
	"sftp://[fe80::1]:22//srv":            {Kind: location.SFTP, Host: "fe80::1", Port: 22, Path: "/srv"},
	"s3:s3.amazonaws.com/bucket":          {Kind: location.S3, Host: "s3.amazonaws.com", Bucket: "bucket"},
	"s3:s3.amazonaws.com/bucket/a/b/":     {Kind: location.S3, Host: "s3.amazonaws.com", Bucket: "bucket", Path: "a/b"},
	"s3://s3.amazonaws.com/bucket/a//b":   {Kind: location.S3, Host: "s3.amazonaws.com", Bucket: "bucket", Path: "a/b"},
	"s3:https://minio:9000/bucket/../x":   {Kind: location.S3, Host: "minio", Port: 9000, Bucket: "bucket", Path: "x"},
	"s3:http://127.0.0.1:9000/bucket/pre": {Kind: location.S3, Host: "127.0.0.1", Port: 9000, Bucket: "bucket", Path: "pre", Plain: true},
	"s3:localhost:9000/bucket":            {Kind: location.S3, Host: "localhost", Port: 9000, Bucket: "bucket"},

	"rest:http://localhost:8000/":            {Kind: location.REST, Host: "localhost", Port: 8000, Path: "/", Plain: true},
	"rest:https://host":                      {Kind: location.REST, Host: "host", Path: "/"},
	"rest:https://host/me/repo":              {Kind: location.REST, Host: "host", Path: "/me/repo/"},
	"rest:https://me:secret@[::1]:8000/repo": {Kind: location.REST, Host: "::1", Port: 8000, User: "me", Password: "secret", Path: "/repo/"},
	"rest:https://me@host/":                  {Kind: location.REST, Host: "host", User: "me", Path: "/"},
}

func TestParse(t *testing.T) {
	for s, want := range valid {
		got, err := location.Parse(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", s, got, err, want)
		}
		if want.Password != "" {
			continue
		}
		if again, err := location.Parse(got.String()); err != nil || again != want {
			t.Errorf("%s: printed as %s, which is %+v, %v", s, got, again, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for s, want := range map[string]string{
		"":                                       "is empty",
		"local:":                                 "names no folder",
		"/srv/\x1b[31m":                          "control character",
		"/srv/\xff":                              "control character",
		strings.Repeat("a", 9000):                "longer than 8192 bytes",
		"https://host/":                          "rest:https://",
		"b2:bucket:/":                            "backblazeb2.com",
		"rclone:remote:path":                     "rclone serve restic",
		"sftp:host":                              "no folder",
		"sftp:me@host":                           "no folder",
		"sftp:me@host:":                          "no folder",
		"sftp:@host:/x":                          "no user",
		"sftp:-oProxy@-evil:/x":                  "not a host",
		"sftp:-oProxy@host:/x":                   "not a user",
		"sftp:me@host:~/x":                       "starts at the login folder",
		"sftp://host":                            "no folder",
		"sftp://host:0//x":                       "not a port",
		"sftp://me:secret@host//x":               "identity_file",
		"s3:https://host/":                       "names no bucket",
		"s3:https://host":                        "names no bucket",
		"s3:/bucket":                             "not a host",
		"s3:https://k:secret@h/b":                "credentials_file",
		"rest:localhost:8000/":                   "rest:https://HOST",
		"rest:ftp://host/":                       "neither http nor https",
		"rest:http:///x":                         "not a host",
		"rest:https://host/?x=1":                 "has a ? or #",
		"rest:https://h:99999/":                  "not a port",
		"rest:https://me:secret@host:port/":      "is not a URL",
		"rest:https://me:sec%ret@host/":          "is not a URL",
		"rest:https://me:secret@ho st/":          "is not a URL",
		"rest:https://host/%0a":                  "control character",
		"rest:https://me:secret/more@host/repo/": "is not a URL",
	} {
		_, err := location.Parse(s)
		var e *location.Error
		if !errors.As(err, &e) || !strings.Contains(e.Error(), want) {
			t.Errorf("%q: %v; want %q", s, err, want)
		} else if strings.Contains(e.Error(), "secret") || strings.Contains(e.Error(), "sec%ret") {
			t.Errorf("%q: the error tells the password: %v", s, err)
		}
	}
}

func TestPasswordIsNotPrinted(t *testing.T) {
	l, err := location.Parse("rest:https://me:secret@host:8000/repo/")
	if err != nil || l.String() != "rest:https://me:***@host:8000/repo/" {
		t.Errorf("%s, %v", l, err)
	}
}

// FuzzParse: what is taken is printed in a form that means the same, and has
// nothing in it that a terminal or a shell option would take for something else.
func FuzzParse(f *testing.F) {
	for s := range valid {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := location.Parse(s)
		if err != nil {
			return
		}
		if l.Kind != location.Local && (l.Host == "" || strings.HasPrefix(l.Host, "-") || strings.HasPrefix(l.User, "-") && l.Kind == location.SFTP) {
			t.Errorf("%q: host %q, user %q", s, l.Host, l.User)
		}
		if l.Path == "" && l.Kind != location.S3 {
			t.Errorf("%q has no path", s)
		}
		l.Password = ""
		again, err := location.Parse(l.String())
		if err != nil || again != l {
			t.Errorf("%q is %+v, printed as %q: %+v, %v", s, l, l, again, err)
		}
	})
}
