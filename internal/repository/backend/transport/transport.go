// Package transport makes network connections that a silent server cannot hold:
// one on which nothing moved for a while, in either direction, fails. It bounds
// what an HTTP server may answer beside files, and follows no redirect.
package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

const (
	// dialTime bounds the making of a connection.
	dialTime = 30 * time.Second
	// maxHeader bounds the header of an answer, in bytes.
	maxHeader = 64 << 10
	// idleTime is how long an unused connection is kept.
	idleTime = 90 * time.Second
)

// ErrStalled is of a connection on which nothing moved for too long.
var ErrStalled = errors.New("no byte moved")

// Hint is the likely fix where a server gave no answer.
func Hint(err error) string {
	if errors.Is(err, ErrStalled) {
		return backend.HintLate
	}
	return "is the server up, and the location right?"
}

// Dial connects to a TCP address. Nothing that is done with the connection waits
// for longer than stall while no byte moves.
func Dial(ctx context.Context, address string, stall time.Duration) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: min(dialTime, stall)}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &guarded{c, stall}, nil
}

// guarded is a connection whose deadline moves with its bytes. Each side moves
// that of the other too: who waits for an answer to an upload that goes on is not
// stalled.
type guarded struct {
	net.Conn
	stall time.Duration
}

func (g *guarded) Read(p []byte) (int, error)  { return g.moved(g.Conn.Read, p) }
func (g *guarded) Write(p []byte) (int, error) { return g.moved(g.Conn.Write, p) }

// moved does one of both. The deadline of a whole Write is its first: what is
// written at once is small.
func (g *guarded) moved(do func([]byte) (int, error), p []byte) (int, error) {
	if err := g.SetDeadline(time.Now().Add(g.stall)); err != nil {
		return 0, err
	}
	n, err := do(p)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return n, fmt.Errorf("%w for %s: %w", ErrStalled, g.stall, err)
	}
	if n > 0 && err == nil {
		err = g.SetDeadline(time.Now().Add(g.stall))
	}
	return n, err
}

// Options are those of [HTTP].
type Options struct {
	// Connections is how many unused connections are kept.
	Connections int
	// Stall is the time after which a silent connection fails.
	Stall time.Duration
	// CAs are certificates in PEM that are trusted beside those of the host.
	CAs []byte
}

// HTTP returns a transport for one server.
func HTTP(o Options) (*http.Transport, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return Dial(ctx, address, o.Stall)
		},
		MaxIdleConnsPerHost:    o.Connections,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
		// A server that wants to refuse an upload may say so before it comes.
		ExpectContinueTimeout: time.Second,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
	if o.CAs == nil {
		return t, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read this host's certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(o.CAs) {
		return nil, errors.New("there is no certificate in PEM in the file")
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool}
	return t, nil
}

// ErrTooLong is of an answer that is longer than any honest one.
var ErrTooLong = errors.New("the answer is too long")

// Limited returns a reader of body that fails with [ErrTooLong] after limit bytes.
func Limited(body io.Reader, limit int64) *Budget {
	b := &Budget{r: body}
	b.Allow(limit)
	return b
}

// Budget is a reader that may read so many bytes.
type Budget struct {
	r    io.Reader
	left atomic.Int64
}

// Allow makes n what may still be read: so each entry of a list is bounded, and the
// list is not.
func (b *Budget) Allow(n int64) { b.left.Store(n) }

// Read implements [io.Reader].
func (b *Budget) Read(p []byte) (int, error) {
	left := b.left.Load()
	if left <= 0 {
		return 0, ErrTooLong
	}
	n, err := b.r.Read(p[:min(int64(len(p)), left)])
	b.left.Add(-int64(n))
	return n, err
}

// BadCertificate reports whether err is of a server whose certificate is not
// trusted, which another try would not change.
func BadCertificate(err error) bool {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	return errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid) || errors.As(err, &verify)
}
