// Package rest keeps a repository on a server that speaks restic's REST protocol:
// rest-server, rclone serve restic, and others. The protocol is defined in
// restic's doc/100_references.rst, "REST Backend"; of its versions 1 and 2 this
// package asks for 2, which tells sizes in listings, and takes 1.
//
// A server may be append-only: then Remove works for lock files alone, and for
// everything else it is [backend.ErrRefused]. What a server has answered with
// success is whole and durable as far as the server keeps its word: the protocol
// has no way to ask. Servers that replace files are asked first whether a file is
// there, so that two writers in one process never replace one. Some servers (rclone
// 1.60 over a local folder) show a file while it arrives.
//
// The server is not trusted: its answers are bounded, its words are escaped, its
// redirects are not followed.
package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
)

const (
	// expectSize is the size from which a server is asked first whether it wants
	// a file at all.
	expectSize = 64 << 10
)

// Options say where the server is, and who asks.
type Options struct {
	URL            *url.URL // of the repository, without a login
	User, Password string   // may be empty
	Transport      http.RoundTripper
}

// Backend is a repository on a REST server.
type Backend struct {
	opts   Options
	base   string // ends in a slash
	client *http.Client
	locks  backend.HandleLocks
}

var _ backend.Backend = (*Backend)(nil)

// New returns the backend. Nothing is asked yet; a folder that is missing on the
// server is made when the first file is saved.
func New(o Options) *Backend {
	return &Backend{
		opts: o, base: strings.TrimSuffix(o.URL.String(), "/") + "/",
		client: &http.Client{
			Transport: o.Transport,
			// A redirect would take the login elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// request is one that is about to be made.
type request struct {
	method, url, accept string
	body                []byte
	ranged              string // of the file, in bytes; empty for all of it
}

// send makes a request. The caller closes the body of the answer, whatever its
// status.
func (b *Backend) send(ctx context.Context, q request) (*http.Response, error) {
	var body io.Reader
	if q.method == http.MethodPost {
		body = bytes.NewReader(q.body)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, q.url, body)
	if err != nil {
		return nil, err
	}
	// Without the media type rclone and others take a body for a form.
	if q.method == http.MethodPost {
		r.Header.Set("Content-Type", "application/octet-stream")
	}
	if len(q.body) >= expectSize {
		r.Header.Set("Expect", "100-continue")
	}
	if q.accept != "" {
		r.Header.Set("Accept", q.accept)
	}
	if q.ranged != "" {
		r.Header.Set("Range", q.ranged)
	}
	if b.opts.User != "" || b.opts.Password != "" {
		r.SetBasicAuth(b.opts.User, b.opts.Password)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		return nil, b.unreachable(ctx, err)
	}
	return resp, nil
}

// unreachable is the error of a request that got no answer.
func (b *Backend) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), b.fail(err, ""))
	}
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err // the place is said already
	}
	if transport.BadCertificate(err) {
		return b.fail(fmt.Errorf("%w: %w", backend.ErrRefused, err), "give the certificate that signed the server's in repository.ca_file")
	}
	return b.fail(err, transport.Hint(err))
}

func (b *Backend) fail(err error, hint string) error {
	return &backend.Error{Place: "rest:" + b.base, Err: err, Hint: hint}
}

// status is the error of an answer that is no success. It closes the body.
func (b *Backend) status(resp *http.Response, op string) error {
	words := make([]byte, backend.MaxMessage)
	n, _ := io.ReadFull(resp.Body, words) // as much as there is
	_ = resp.Body.Close()                 // only read from
	said := fmt.Errorf("%s: %s", op, backend.Words(resp.Status))
	if text := strings.TrimSpace(string(words[:n])); text != "" && text != http.StatusText(resp.StatusCode) {
		said = fmt.Errorf("%w: %s", said, backend.Words(text))
	}
	hint := ""
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		hint = "the server wants another login: RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in repository.credentials_file"
	case http.StatusForbidden:
		hint = "the login may not do this; an append-only server lets nobody remove anything but locks"
	case http.StatusInsufficientStorage, http.StatusRequestEntityTooLarge:
		hint = "the server is full, or takes no file of this size"
	case http.StatusNotFound:
		hint = "is the path in the location right?"
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusLocked:
		return b.fail(said, "")
	case http.StatusInternalServerError:
		return b.fail(fmt.Errorf("%w: %w", backend.ErrServer, said), backend.HintFailed)
	default:
		if resp.StatusCode >= 300 && resp.StatusCode < 400 {
			hint = "drydock follows no redirect: give the address that the server itself has"
		} else if resp.StatusCode >= 500 {
			return b.fail(said, backend.HintFailed)
		}
	}
	return b.fail(fmt.Errorf("%w: %w", backend.ErrRefused, said), hint)
}

// file is the address of file h.
func (b *Backend) file(ctx context.Context, h backend.Handle) (string, error) {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return "", err
	}
	if h.Type == backend.ParityFile {
		return "", b.fail(fmt.Errorf("%s: %w: %w", h, backend.ErrRefused, backend.ErrNotExist), "servers of this protocol keep restic's own files alone: repository.ecc has no meaning there")
	}
	return b.base + h.String(), nil
}

// notExist is the error of file h, which is not there. It closes the body.
func (b *Backend) notExist(resp *http.Response, h backend.Handle) error {
	_ = resp.Body.Close() // only read from
	return b.fail(fmt.Errorf("%s: %w", h, backend.ErrNotExist), "")
}

// Save implements [backend.Backend].
func (b *Backend) Save(ctx context.Context, h backend.Handle, data []byte) error {
	file, err := b.file(ctx, h)
	if err != nil {
		return err
	}
	unlock, err := b.locks.Lock(ctx, h)
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.absent(ctx, h); err != nil {
		return err
	}
	op := "save " + h.String()
	resp, err := b.send(ctx, request{method: http.MethodPost, url: file, body: data})
	if err == nil && resp.StatusCode == http.StatusNotFound {
		if err = errors.Join(resp.Body.Close(), b.create(ctx)); err == nil {
			resp, err = b.send(ctx, request{method: http.MethodPost, url: file, body: data})
		}
	}
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusCreated:
		return resp.Body.Close()
	case resp.StatusCode == http.StatusForbidden:
		// rest-server, of a file that another has saved since we looked.
		if there := b.absent(ctx, h); errors.Is(there, backend.ErrExist) {
			return errors.Join(there, resp.Body.Close())
		}
	}
	return b.status(resp, op)
}

// absent returns [backend.ErrExist] if file h is there.
func (b *Backend) absent(ctx context.Context, h backend.Handle) error {
	_, err := b.Stat(ctx, h)
	switch {
	case err == nil:
		return b.fail(fmt.Errorf("%s: %w", h, backend.ErrExist), "")
	case errors.Is(err, backend.ErrNotExist):
		return nil
	}
	return err
}

// create makes the repository's folders on the server.
func (b *Backend) create(ctx context.Context) error {
	resp, err := b.send(ctx, request{method: http.MethodPost, url: b.base + "?create=true"})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return b.status(resp, "make the repository's folders")
	}
	return resp.Body.Close()
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, h backend.Handle, p []byte, off int64) (int, error) {
	file, err := b.file(ctx, h)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("%s: offset %d is negative", h, off)
	}
	if len(p) == 0 {
		_, err := b.Stat(ctx, h)
		return 0, err
	}
	resp, err := b.send(ctx, request{method: http.MethodGet, url: file, ranged: fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1)})
	if err != nil {
		return 0, err
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		// "bytes 5-9/100": a range that was not asked for is somebody else's data.
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", off)) {
			return 0, errors.Join(b.fail(fmt.Errorf("%w: read %s at %d: it sent range %q", backend.ErrHostile, h, off, resp.Header.Get("Content-Range")), ""), resp.Body.Close())
		}
	case http.StatusOK:
		if off != 0 {
			return 0, errors.Join(b.fail(fmt.Errorf("%w: it cannot send a part of a file", backend.ErrRefused), "a proxy in between may strip the Range header"), resp.Body.Close())
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return 0, errors.Join(io.EOF, resp.Body.Close())
	case http.StatusNotFound:
		return 0, b.notExist(resp, h)
	default:
		return 0, b.status(resp, "read "+h.String())
	}
	n, err := io.ReadFull(resp.Body, p)
	_ = resp.Body.Close() // only read from
	if n == 0 && err != nil {
		// rclone breaks the connection where the range begins behind the end.
		if info, serr := b.Stat(ctx, h); serr == nil && off >= info.Size {
			return 0, io.EOF
		}
	}
	return n, b.readError(ctx, err, resp.ContentLength, n)
}

// readError tells the end of a file from a connection that broke: the server had
// said how much it would send.
func (b *Backend) readError(ctx context.Context, err error, promised int64, n int) error {
	switch {
	case err == nil:
		return nil
	case (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && promised == int64(n):
		return io.EOF
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return b.unreachable(ctx, err)
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, h backend.Handle) (backend.FileInfo, error) {
	file, err := b.file(ctx, h)
	if err != nil {
		return backend.FileInfo{}, err
	}
	resp, err := b.send(ctx, request{method: http.MethodHead, url: file})
	if err != nil {
		return backend.FileInfo{}, err
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return backend.FileInfo{}, b.notExist(resp, h)
	case resp.StatusCode != http.StatusOK:
		return backend.FileInfo{}, b.status(resp, "look at "+h.String())
	}
	// Go's client has parsed the header; without one it is -1.
	size := resp.ContentLength
	if size < 0 {
		return backend.FileInfo{}, errors.Join(b.fail(fmt.Errorf("%w: %s has no length", backend.ErrHostile, h), ""), resp.Body.Close())
	}
	stored, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		stored = time.Time{} // not told
	}
	return backend.FileInfo{Name: h.Name, Size: size, ModTime: stored}, resp.Body.Close()
}

// Remove implements [backend.Backend].
func (b *Backend) Remove(ctx context.Context, h backend.Handle) error {
	file, err := b.file(ctx, h)
	if err != nil {
		return err
	}
	// Not every server says that a file was not there.
	if _, err := b.Stat(ctx, h); err != nil {
		return err
	}
	resp, err := b.send(ctx, request{method: http.MethodDelete, url: file})
	if err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNoContent:
		return resp.Body.Close()
	case http.StatusNotFound:
		return b.notExist(resp, h)
	}
	return b.status(resp, "remove "+h.String())
}
