// Package location reads and writes the places of repositories as restic writes
// them:
//
//	/srv/backup   local:/srv/backup             a folder
//	sftp:user@host:/path                        SFTP, absolute
//	sftp:user@host:path                         SFTP, from the login folder
//	sftp://user@host:2222//path                 SFTP on another port
//	s3:https://server:port/bucket/prefix        an S3-compatible server
//	s3:s3.amazonaws.com/bucket/prefix           the same, over HTTPS
//	rest:https://user:password@host:port/path/  restic's REST protocol
//
// What restic takes, [Parse] takes and means the same, but for the other schemes
// that restic has: their errors say what to use instead. [Location.String] gives
// the place back as restic reads it, and never with a password.
package location

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is a way to reach a repository.
type Kind string

// The kinds, named by their schemes.
const (
	Local Kind = "local"
	SFTP  Kind = "sftp"
	S3    Kind = "s3"
	REST  Kind = "rest"
)

// maxLength bounds a location, in bytes. A path has at most 4096.
const maxLength = 8192

// Location is where a repository is. Two of the same place are equal.
type Location struct {
	Kind Kind
	// Path is the folder of Local and SFTP; the prefix in the bucket of S3, with
	// no slash at either end; and the path of REST, with one at both ends.
	Path string
	// Host is the server: a name or an address, without brackets.
	Host string
	// Port is 0 for that of the protocol.
	Port uint16
	// User is the login of SFTP and REST; empty if it is not given.
	User string
	// Password is that of REST. It is never printed.
	Password string
	// Bucket is that of S3.
	Bucket string
	// Plain is HTTP without TLS, for S3 and REST.
	Plain bool
}

// Error is a location that cannot be used, with the likely fix.
type Error struct {
	Problem string
	Hint    string // may be empty
}

// Error is one line.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Problem
	}
	return e.Problem + " (" + e.Hint + ")"
}

// The forms that hints show.
const (
	formSFTP = "write sftp:USER@HOST:/PATH, or sftp://USER@HOST:PORT//PATH for another port"
	formS3   = "write s3:https://SERVER/BUCKET, with a prefix behind it if need be"
	formREST = "write rest:https://HOST:PORT/PATH/"
)

// foreign are schemes of restic that drydock has no client for.
var foreign = map[string]string{
	"b2": "use the S3-compatible interface of Backblaze B2: s3:https://s3.REGION.backblazeb2.com/BUCKET",
	"gs": hintRclone, "azure": hintRclone, "swift": hintRclone, "rclone": hintRclone,
}

const hintRclone = "run rclone serve restic --addr localhost:8000 REMOTE:PATH, and give rest:http://localhost:8000/"

// Parse reads a location. What is wrong with it is an [*Error], which holds no
// password.
func Parse(s string) (Location, error) {
	switch {
	case s == "":
		return Location{}, &Error{"is empty", "give a folder, or " + string(SFTP) + ":, " + string(S3) + ": or " + string(REST) + ": and what follows"}
	case len(s) > maxLength:
		return Location{}, &Error{fmt.Sprintf("is longer than %d bytes", maxLength), ""}
	case !isText(s):
		return Location{}, &Error{"has a control character in it", "rename the folder"}
	}
	scheme, rest, found := strings.Cut(s, ":")
	if !found {
		return parseLocal(s)
	}
	switch Kind(scheme) {
	case Local:
		return parseLocal(rest)
	case SFTP:
		return parseSFTP(rest)
	case S3:
		return parseS3(rest)
	case REST:
		return parseREST(rest)
	}
	if hint, ok := foreign[scheme]; ok {
		return Location{}, &Error{fmt.Sprintf("drydock has no client for %s:", scheme), hint}
	}
	if strings.HasPrefix(rest, "//") {
		return Location{}, &Error{fmt.Sprintf("%q is no way to a repository", scheme), "restic's REST protocol is rest:" + scheme + "://…, a server of S3 is s3:" + scheme + "://…"}
	}
	return parseLocal(s)
}

func parseLocal(folder string) (Location, error) {
	if folder == "" {
		return Location{}, &Error{"names no folder", "write local:/PATH"}
	}
	return Location{Kind: Local, Path: path.Clean(folder)}, nil
}

// parseSFTP reads what follows "sftp:".
func parseSFTP(s string) (Location, error) {
	l := Location{Kind: SFTP}
	var folder string
	if strings.HasPrefix(s, "//") {
		u, err := parseURL("sftp:" + s)
		if err != nil {
			return l, &Error{err.Error(), formSFTP}
		}
		if _, has := u.User.Password(); has {
			return l, &Error{"has a password in it", "drydock logs in with a key: see repository.sftp.identity_file"}
		}
		if l.Host, l.Port, err = hostPort(u); err != nil {
			return l, &Error{err.Error(), formSFTP}
		}
		l.User = u.User.Username()
		folder = strings.TrimPrefix(u.Path, "/")
	} else {
		server, p, found := cutHost(s)
		if !found {
			return l, &Error{"has no folder after the host", formSFTP}
		}
		// As restic does: a user may have an @ in it.
		if at := strings.LastIndexByte(server, '@'); at >= 0 {
			l.User, server = server[:at], server[at+1:]
			if l.User == "" {
				return l, &Error{"has no user before the @", formSFTP}
			}
		}
		l.Host, folder = server, p
	}
	switch {
	case !validHost(l.Host):
		return l, &Error{fmt.Sprintf("%q is not a host", l.Host), formSFTP}
	case strings.HasPrefix(l.User, "-") || strings.ContainsFunc(l.User, unicode.IsSpace) || strings.ContainsAny(l.User, ":[]/"):
		return l, &Error{fmt.Sprintf("%q is not a user", l.User), formSFTP}
	case folder == "":
		return l, &Error{"has no folder after the host", formSFTP}
	case strings.HasPrefix(folder, "~"):
		return l, &Error{"servers do not know ~", "a folder without / in front starts at the login folder"}
	}
	l.Path = path.Clean(folder)
	return l, nil
}

// cutHost cuts "host:path" at the colon; an IPv6 address stands in brackets.
func cutHost(s string) (host, path string, found bool) {
	open, colon := strings.IndexByte(s, '['), strings.IndexByte(s, ':')
	if open >= 0 && open < colon && (open == 0 || s[open-1] == '@') {
		user := s[:open]
		host, path, found = strings.Cut(s[open+1:], "]:")
		return user + host, path, found
	}
	return strings.Cut(s, ":")
}

// parseS3 reads what follows "s3:".
func parseS3(s string) (Location, error) {
	l := Location{Kind: S3}
	switch {
	case strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://"):
	case strings.HasPrefix(s, "//"):
		s = "https:" + s
	default:
		s = "https://" + s
	}
	u, err := parseURL(s)
	if err != nil {
		return l, &Error{err.Error(), formS3}
	}
	if u.User != nil {
		return l, &Error{"has a password in it", "keys of S3 are given in repository.credentials_file"}
	}
	l.Plain = u.Scheme == "http"
	if l.Host, l.Port, err = hostPort(u); err != nil {
		return l, &Error{err.Error(), formS3}
	}
	var prefix string
	l.Bucket, prefix, _ = strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if l.Bucket == "" {
		return l, &Error{"names no bucket", formS3}
	}
	if strings.ContainsAny(l.Bucket, " \t\\:@") || l.Bucket == "." || l.Bucket == ".." {
		return l, &Error{fmt.Sprintf("%q is not a bucket", l.Bucket), formS3}
	}
	// Restic cleans the prefix alike; an object's name starts with no slash.
	l.Path = strings.TrimPrefix(path.Clean("/"+prefix), "/")
	return l, nil
}

// parseREST reads what follows "rest:".
func parseREST(s string) (Location, error) {
	l := Location{Kind: REST}
	u, err := parseURL(s)
	if err != nil {
		return l, &Error{err.Error(), formREST}
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return l, &Error{"is neither http nor https", formREST}
	}
	l.Plain = u.Scheme == "http"
	if l.Host, l.Port, err = hostPort(u); err != nil {
		return l, &Error{err.Error(), formREST}
	}
	l.User = u.User.Username()
	l.Password, _ = u.User.Password()
	if l.Path = u.Path; !strings.HasSuffix(l.Path, "/") {
		l.Path += "/"
	}
	return l, nil
}

// parseURL parses a URL. Errors of package url quote the whole of it, with the
// password: they are told in fewer words.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	var port *strconv.NumError
	switch {
	case err != nil && (errors.As(err, &port) || strings.Contains(s, "@")):
		return nil, errors.New("is not a URL") // the cause may quote a part of the password
	case err != nil:
		return nil, fmt.Errorf("is not a URL: %w", err)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#"):
		return nil, errors.New("has a ? or # in it")
	case u.Opaque != "":
		return nil, errors.New("is not a URL with a host")
	case !isText(u.Path) || !isText(u.User.Username()):
		return nil, errors.New("has a control character in it")
	}
	return u, nil
}

// isText reports whether s is UTF-8 without control characters.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func hostPort(u *url.URL) (string, uint16, error) {
	host := u.Hostname()
	if !validHost(host) {
		return "", 0, fmt.Errorf("%q is not a host", host)
	}
	if u.Port() == "" {
		return host, 0, nil
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q is not a port", u.Port())
	}
	return host, uint16(n), nil
}

// validHost reports whether host can be a name or an address. A hyphen in front
// would be an option to whatever program is given the host.
func validHost(host string) bool {
	if strings.Contains(host, ":") {
		return net.ParseIP(host) != nil
	}
	return host != "" && !strings.HasPrefix(host, "-") && !strings.ContainsFunc(host, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
	})
}

// Server is Host and Port as a URL has them: the port only if it is given.
func (l Location) Server() string {
	host := l.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if l.Port != 0 {
		host += ":" + strconv.Itoa(int(l.Port))
	}
	return host
}

// URL is the address of the server of S3 and REST, without a login, and the path
// of REST.
func (l Location) URL() *url.URL {
	u := &url.URL{Scheme: "https", Host: l.Server()}
	if l.Plain {
		u.Scheme = "http"
	}
	if l.Kind == REST {
		u.Path = l.Path
	}
	return u
}

// String is the location as restic reads it. A password is printed as ***.
func (l Location) String() string {
	switch l.Kind {
	case SFTP:
		return l.sftpString()
	case S3:
		u := l.URL()
		u.Path = "/" + l.Bucket
		if l.Path != "" {
			u.Path += "/" + l.Path
		}
		return "s3:" + u.String()
	case REST:
		u := l.URL()
		switch {
		case l.Password != "":
			// Not through url.UserPassword, which would escape the stars.
			return "rest:" + u.Scheme + "://" + url.User(l.User).String() + ":***@" + strings.TrimPrefix(u.String(), u.Scheme+"://")
		case l.User != "":
			u.User = url.User(l.User)
		}
		return "rest:" + u.String()
	}
	if scheme, _, found := strings.Cut(l.Path, ":"); found && !strings.Contains(scheme, "/") {
		return "local:" + l.Path
	}
	return l.Path
}

func (l Location) sftpString() string {
	user := ""
	if l.Port == 0 {
		if l.User != "" {
			user = l.User + "@"
		}
		return "sftp:" + user + l.Server() + ":" + l.Path
	}
	u := &url.URL{Scheme: "sftp", Host: l.Server(), Path: "/" + l.Path}
	if l.User != "" {
		u.User = url.User(l.User)
	}
	return u.String()
}
