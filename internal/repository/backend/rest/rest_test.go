package rest_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/backendtest"
	"github.com/drydock-vm/drydock/internal/repository/backend/rest"
	"github.com/drydock-vm/drydock/internal/repository/backend/retry"
	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
	"github.com/drydock-vm/drydock/internal/testserver"
)

// place is the folder on the servers. The blank must be escaped.
const place = "/a place/"

func connect(t testing.TB, address string, change ...func(*rest.Options)) *rest.Backend {
	t.Helper()
	tr, err := transport.HTTP(transport.Options{Connections: 5, Stall: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	o := rest.Options{URL: &url.URL{Scheme: "http", Host: address, Path: place}, Transport: tr}
	for _, c := range change {
		c(&o)
	}
	return rest.New(o)
}

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		return connect(t, testserver.REST(t, t.TempDir()).Address)
	}, backendtest.SeenWhileSaved, backendtest.NoParity)
}

func TestRestic(t *testing.T) {
	for name, flags := range map[string][]string{"free": nil, "append-only": {"--append-only"}} {
		t.Run(name, func(t *testing.T) {
			s := testserver.REST(t, t.TempDir(), flags...)
			be := retry.New(connect(t, s.Address), retry.Options{})
			backendtest.Judge(t, be, backendtest.Place{Location: "rest:http://" + s.Address + "/a%20place/", AppendOnly: flags != nil})
		})
	}
}

var handle = backend.Handle{Type: backend.PackFile, Name: strings.Repeat("ab", 32)}

// wantError is one line with what is to be in it, and no secret.
func wantError(t *testing.T, err, is error, want ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("%v is not %v", err, is)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in %q", w, err)
		}
	}
	if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has a secret in it, or several lines: %q", err)
	}
}

func TestLogin(t *testing.T) {
	s := testserver.REST(t, t.TempDir(), "--user", "me", "--pass", "secret one")
	login := func(password string) func(*rest.Options) {
		return func(o *rest.Options) { o.User, o.Password = "me", password }
	}
	if err := connect(t, s.Address, login("secret one")).Save(t.Context(), handle, []byte("x")); err != nil {
		t.Error(err)
	}
	be := connect(t, s.Address, login("another secret"))
	big := make([]byte, 8<<20) // the refusal comes while it is sent
	for _, h := range []backend.Handle{handle, {Type: backend.ConfigFile}} {
		wantError(t, be.Save(t.Context(), h, big), backend.ErrRefused, "401", "RESTIC_REST_PASSWORD")
	}
}

// A certificate that nobody vouches for is not trusted, and the fix is named.
func TestCertificate(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	_, err := connect(t, strings.TrimPrefix(s.URL, "https://"), func(o *rest.Options) { o.URL.Scheme = "https" }).Stat(t.Context(), handle)
	wantError(t, err, backend.ErrRefused, "repository.ca_file")
	be := connect(t, strings.TrimPrefix(s.URL, "https://"), func(o *rest.Options) {
		o.URL.Scheme = "https"
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		if o.Transport, err = transport.HTTP(transport.Options{Stall: time.Minute, CAs: ca}); err != nil {
			t.Fatal(err)
		}
	})
	_, err = be.Stat(t.Context(), handle)
	wantError(t, err, backend.ErrNotExist)
}

func TestGone(t *testing.T) {
	s := testserver.REST(t, t.TempDir())
	be := connect(t, s.Address)
	s.Stop()
	_, err := be.Stat(t.Context(), handle)
	var op *net.OpError
	if !errors.As(err, &op) || !strings.Contains(err.Error(), "is the server up") {
		t.Errorf("stat: %v", err)
	}
}

// A server that hangs is an error soon.
func TestHang(t *testing.T) {
	s := testserver.REST(t, t.TempDir())
	be := connect(t, s.Address, func(o *rest.Options) {
		var err error
		if o.Transport, err = transport.HTTP(transport.Options{Stall: 300 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	})
	if err := be.Save(t.Context(), handle, []byte("x")); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	defer s.Resume()
	for _, data := range []int{10, 16 << 20} {
		err := be.Save(t.Context(), backend.Handle{Type: backend.IndexFile, Name: handle.Name}, make([]byte, data))
		if err == nil || !strings.Contains(err.Error(), "no byte moved for 300ms") {
			t.Errorf("save of %d bytes: %v", data, err)
		}
	}
}

// cutting is a transport that does something once, in the middle of an upload.
type cutting struct {
	http.RoundTripper
	once   sync.Once
	middle func()
}

func (c *cutting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		r = r.Clone(r.Context())
		first := io.LimitReader(r.Body, r.ContentLength/2)
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(first, readerFunc(func([]byte) (int, error) { c.once.Do(c.middle); return 0, io.EOF }), r.Body), r.Body}
	}
	return c.RoundTripper.RoundTrip(r)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A server that is killed in the middle of an upload and comes back has the file, and
// the whole of it.
func TestKilledServer(t *testing.T) {
	dir := t.TempDir()
	s := testserver.REST(t, dir)
	var left []string
	be := retry.New(connect(t, s.Address, func(o *rest.Options) {
		o.Transport = &cutting{RoundTripper: o.Transport, middle: func() {
			s.Restart()
			left, _ = filepath.Glob(filepath.Join(dir, place, "data", "ab", "*")) // the pattern is good
		}}
	}), retry.Options{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	if err := be.Save(t.Context(), handle, data); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if n, err := be.ReadAt(t.Context(), handle, got, 0); n != len(data) || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if len(left) == 0 {
		t.Error("the upload had not begun when the server was killed")
	}
}

// A full disk at the server is an error, and leaves no part of a file.
func TestFull(t *testing.T) {
	dir := testserver.SmallDisk(t, 4)
	s := testserver.REST(t, dir)
	be := retry.New(connect(t, s.Address), retry.Options{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	err := be.Save(t.Context(), handle, make([]byte, 4<<20))
	// rclone's log says why, and it says nothing to us.
	if err == nil || !strings.Contains(err.Error(), "500") || !strings.Contains(err.Error(), "is its disk full?") {
		t.Errorf("save: %v", err)
	}
	if _, err := be.Stat(t.Context(), handle); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("a part is left: %v", err)
	}
	if err := be.Save(t.Context(), handle, make([]byte, 1000)); err != nil {
		t.Errorf("save of a small file: %v", err)
	}
}

// fake serves what no honest server does.
func fake(t *testing.T, serve http.HandlerFunc) *rest.Backend {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return connect(t, strings.TrimPrefix(s.URL, "http://"))
}

func TestHostileServer(t *testing.T) {
	list := func(be backend.Backend) error {
		return be.List(t.Context(), backend.PackFile, func(backend.FileInfo) error { return nil })
	}
	write := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.x.restic.rest.v2")
			_, _ = io.WriteString(w, body)
		}
	}
	forever := func(begin, more string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.x.restic.rest.v2")
			_, err := io.WriteString(w, begin)
			for err == nil {
				_, err = io.WriteString(w, more)
			}
		}
	}
	for name, serve := range map[string]http.HandlerFunc{
		"a page":          write("<html>hello</html>"),
		"an object":       write(`{"name":"x"}`),
		"numbers":         write(`[1,2]`),
		"a huge size":     write(`[{"name":"` + handle.Name + `","size":99999999999999999999}]`),
		"a name for ever": forever(`[{"name":"`, strings.Repeat("a", 4096)),
		"blanks for ever": forever(`[`, strings.Repeat(" ", 4096)),
	} {
		t.Run(name, func(t *testing.T) { wantError(t, list(fake(t, serve)), backend.ErrHostile) })
	}
	if err := list(fake(t, write(`[{"name":"../../etc/passwd","size":1}, {"name":"x","size":-1}]`))); err != nil {
		t.Errorf("names that are nobody's were not passed over: %v", err)
	}
	wantError(t, list(fake(t, write(`[`))), io.ErrUnexpectedEOF)

	status := func(code int, body string) *rest.Backend {
		return fake(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://elsewhere/")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		})
	}
	wantError(t, list(status(302, "")), backend.ErrRefused, "no redirect")
	wantError(t, list(status(507, "quota")), backend.ErrRefused, "507", "quota", "full")
	wantError(t, list(status(400, "\x1b[31mred\nnext"+strings.Repeat("x", 1<<20))), backend.ErrRefused, `\u{1b}[31mred\nnext`)

	// Another range than was asked for, and more than was asked for.
	ranged := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/10")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "0123456789")
	})
	_, err := ranged.ReadAt(t.Context(), handle, make([]byte, 3), 5)
	wantError(t, err, backend.ErrHostile, "bytes 0-9/10")
	p := make([]byte, 5, 10)
	if n, err := ranged.ReadAt(t.Context(), handle, p, 0); n != 5 || err != nil || string(p[:10]) != "01234\x00\x00\x00\x00\x00" {
		t.Errorf("more than was asked for: %d, %v, %q", n, err, p[:10])
	}
}

// A server of version 1 lists no sizes.
func TestVersion1(t *testing.T) {
	be := fake(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodHead && filepath.Base(r.URL.Path) == handle.Name:
			w.Header().Set("Content-Length", "17")
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		default:
			fmt.Fprintf(w, `["%s", "%064d", "tmp"]`, handle.Name, 0)
		}
	})
	var got []backend.FileInfo
	err := be.List(t.Context(), backend.PackFile, func(info backend.FileInfo) error { got = append(got, info); return nil })
	if err != nil || len(got) != 1 || got[0] != (backend.FileInfo{Name: handle.Name, Size: 17}) {
		t.Errorf("listed %v, %v", got, err)
	}
}

// rest-server answers 404 until its folders are made, and 403 for a file that
// another has saved meanwhile.
func TestRestServersAnswers(t *testing.T) {
	made, saved := false, false
	be := fake(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodHead && saved:
			w.Header().Set("Content-Length", "1")
		case r.Method == http.MethodPost && r.URL.RawQuery == "create=true":
			made = true
		case r.Method == http.MethodPost && made && !saved:
			saved = true
			w.WriteHeader(http.StatusForbidden)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	wantError(t, be.Save(t.Context(), handle, []byte("x")), backend.ErrExist)
	if !made {
		t.Error("the folders were not made")
	}
}

// FuzzList: whatever a server lists, the names are valid, and an end comes.
func FuzzList(f *testing.F) {
	f.Add(`[{"name":"`+handle.Name+`","size":1}]`, true)
	f.Add(`["`+handle.Name+`"]`, false)
	f.Add(`null`, true)
	f.Add(`[[[[`, true)
	f.Fuzz(func(t *testing.T, body string, v2 bool) {
		be := rest.New(rest.Options{URL: &url.URL{Scheme: "http", Host: "host", Path: "/"}, Transport: answer{body, v2}})
		err := be.List(t.Context(), backend.PackFile, func(info backend.FileInfo) error {
			if !backend.ValidName(info.Name) {
				t.Errorf("%q was listed", info.Name)
			}
			return nil
		})
		if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("the error is not one safe line: %q", err)
		}
	})
}

// answer is a transport that knows one answer.
type answer struct {
	body string
	v2   bool
}

func (a answer) RoundTrip(r *http.Request) (*http.Response, error) {
	h := http.Header{}
	if a.v2 {
		h.Set("Content-Type", "application/vnd.x.restic.rest.v2")
	}
	return &http.Response{StatusCode: http.StatusOK, Header: h, ContentLength: int64(len(a.body)), Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}
