// Package s3 keeps a repository in a bucket of a server that speaks S3, in restic's
// default layout, below a prefix:
//
//	PREFIX/config
//	PREFIX/data/XX/<64 hex digits>    XX are the first two digits
//	PREFIX/index/ keys/ locks/ snapshots/
//	PREFIX/ecc/XX/<64 hex digits>     drydock's own: the parity of packs
//
// An object appears whole or not at all, and is durable when the server says so. A
// file is never replaced, unless [Backend.Replace] is asked to: the server is asked whether it is there, and, where it
// knows If-None-Match, refuses by itself to replace one.
//
// With object lock every file but the lock files is uploaded with a retention: until
// it is over nobody who has these keys, drydock included, can destroy it. What is
// removed before then is hidden by a delete marker, and comes back when the marker is
// removed. The time counts from the upload of a file, also for a pack that later
// backups still use.
//
// The server is not trusted: its answers are bounded, its words are escaped, its
// redirects are not followed.
package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Lookup is how a bucket is named in a request.
type Lookup int

// The ways.
const (
	LookupAuto Lookup = iota // as the server's name suggests
	LookupPath               // https://server/bucket/
	LookupDNS                // https://bucket.server/
)

// Retention is the mode of object lock.
type Retention string

// The modes. Compliance cannot be shortened or lifted by anybody; governance can, by
// who has the right s3:BypassGovernanceRetention.
const (
	Governance Retention = "GOVERNANCE"
	Compliance Retention = "COMPLIANCE"
)

// ObjectLock is a retention that uploads get.
type ObjectLock struct {
	Mode Retention // empty for none
	For  time.Duration
}

// Options say where the bucket is, and who asks.
type Options struct {
	Endpoint  string // HOST or HOST:PORT
	Plain     bool   // HTTP without TLS
	Bucket    string
	Prefix    string // without a slash at either end; may be empty
	Region    string // empty: the server is asked
	Lookup    Lookup
	Lock      ObjectLock
	AccessKey string
	SecretKey string
	Token     string // of temporary keys; else empty
	Transport http.RoundTripper
	Now       func() time.Time // nil means time.Now
}

// Backend is a repository in a bucket.
type Backend struct {
	opts  Options
	core  minio.Core
	locks backend.HandleLocks
}

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Replacer = (*Backend)(nil)
)

// New returns the backend. Nothing is asked yet. The bucket must exist.
func New(o Options) (*Backend, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	b := &Backend{opts: o}
	if o.AccessKey == "" || o.SecretKey == "" {
		return nil, b.fail(fmt.Errorf("%w: there are no keys to log in with", backend.ErrRefused),
			"give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in repository.credentials_file")
	}
	lookup := map[Lookup]minio.BucketLookupType{LookupPath: minio.BucketLookupPath, LookupDNS: minio.BucketLookupDNS}[o.Lookup]
	core, err := minio.NewCore(o.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, o.Token), Secure: !o.Plain,
		Region: o.Region, BucketLookup: lookup, Transport: bounded{o.Transport},
		MaxRetries: 1, // package retry does that
	})
	if err != nil {
		return nil, b.fail(err, "")
	}
	b.core = *core
	return b, nil
}

// object returns the name of file h in the bucket.
func (b *Backend) object(h backend.Handle) string { return path.Join(b.opts.Prefix, h.Path()) }

// Save implements [backend.Backend].
func (b *Backend) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return err
	}
	unlock, err := b.locks.Lock(ctx, h)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = b.Stat(ctx, h)
	switch {
	case err == nil:
		return b.exists(h)
	case !errors.Is(err, backend.ErrNotExist):
		return err
	}
	err = b.put(ctx, h, data, true)
	if code(err) == "NotImplemented" { // a server that does not know If-None-Match
		err = b.put(ctx, h, data, false)
	}
	if code(err) == "PreconditionFailed" {
		return b.exists(h)
	}
	return b.translate(ctx, "save "+h.String(), err)
}

// Replace implements [backend.Replacer]. In a bucket with object lock the new file is
// a new version, and the old one stays beneath it.
func (b *Backend) Replace(ctx context.Context, h backend.Handle, data []byte) error {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return err
	}
	unlock, err := b.locks.Lock(ctx, h)
	if err != nil {
		return err
	}
	defer unlock()
	return b.translate(ctx, "replace "+h.String(), b.put(ctx, h, data, false))
}

func (b *Backend) exists(h backend.Handle) error {
	return b.fail(fmt.Errorf("%s: %w", h, backend.ErrExist), "")
}

// put uploads in one request. The hash of the content is signed with it, so that a
// server keeps what was sent, or says so.
func (b *Backend) put(ctx context.Context, h backend.Handle, data []byte, onlyNew bool) error {
	o := minio.PutObjectOptions{ContentType: "application/octet-stream"}
	if onlyNew {
		o.SetMatchETagExcept("*")
	}
	sum := ""
	if l := b.opts.Lock; l.Mode != "" && h.Type != backend.LockFile {
		o.Mode, o.RetainUntilDate = minio.RetentionMode(l.Mode), b.opts.Now().Add(l.For).UTC()
		m := md5.Sum(data) // Content-MD5, which an upload with a retention needs
		sum = base64.StdEncoding.EncodeToString(m[:])
	}
	hash := sha256.Sum256(data)
	_, err := b.core.PutObject(ctx, b.opts.Bucket, b.object(h), bytes.NewReader(data), int64(len(data)), sum, hex.EncodeToString(hash[:]), o)
	return err
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, h backend.Handle, p []byte, off int64) (int, error) {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("%s: offset %d is negative", h, off)
	}
	if len(p) == 0 {
		_, err := b.Stat(ctx, h)
		return 0, err
	}
	var o minio.GetObjectOptions
	o.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
	body, info, header, err := b.core.GetObject(ctx, b.opts.Bucket, b.object(h), o)
	if code(err) == "InvalidRange" {
		return 0, io.EOF
	}
	if err != nil {
		return 0, b.translate(ctx, "read "+h.String(), err)
	}
	if body == nil { // a status such as 202, which is no error and no content
		return 0, b.fail(fmt.Errorf("%w: read %s: it answered, and sent neither content nor an error", backend.ErrHostile, h), "")
	}
	// "bytes 5-9/100": a range that was not asked for is somebody else's data.
	if r := header.Get("Content-Range"); !strings.HasPrefix(r, fmt.Sprintf("bytes %d-", off)) && (r != "" || off != 0) {
		_ = body.Close() // it is not read
		return 0, b.fail(fmt.Errorf("%w: read %s at %d: it sent range %q", backend.ErrHostile, h, off, r), "")
	}
	n, err := io.ReadFull(body, p)
	_ = body.Close() // only read from
	switch {
	case err == nil:
		return n, nil
	case (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && info.Size == int64(n):
		return n, io.EOF
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, b.translate(ctx, "read "+h.String(), err)
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, h backend.Handle) (backend.FileInfo, error) {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return backend.FileInfo{}, err
	}
	op := "look at " + h.String()
	info, err := b.core.StatObject(ctx, b.opts.Bucket, b.object(h), minio.StatObjectOptions{})
	if err == nil {
		return backend.FileInfo{Name: h.Name, Size: info.Size, ModTime: info.LastModified}, nil
	}
	err = b.translate(ctx, op, err)
	if h.Type == backend.ConfigFile && errors.Is(err, backend.ErrNotExist) {
		// An answer to HEAD has no words: is it the file, or the bucket?
		if there, berr := b.core.BucketExists(ctx, b.opts.Bucket); berr == nil && !there {
			err = b.noBucket(op)
		}
	}
	return backend.FileInfo{}, err
}

// List implements [backend.Backend].
func (b *Backend) List(ctx context.Context, t backend.FileType, yield func(backend.FileInfo) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t == backend.ConfigFile {
		return backend.ListConfig(ctx, b, yield)
	}
	pages, cancel := context.WithCancel(ctx)
	defer cancel() // what lists in the background ends
	for o := range b.core.Client.ListObjects(pages, b.opts.Bucket, minio.ListObjectsOptions{Prefix: path.Join(b.opts.Prefix, string(t)) + "/", Recursive: true}) {
		if o.Err != nil {
			return b.translate(ctx, "list "+string(t), o.Err)
		}
		h := backend.Handle{Type: t, Name: path.Base(o.Key)}
		if h.Validate() != nil || b.object(h) != o.Key {
			continue
		}
		if err := yield(backend.FileInfo{Name: h.Name, Size: o.Size, ModTime: o.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Remove implements [backend.Backend].
func (b *Backend) Remove(ctx context.Context, h backend.Handle) error {
	// S3 does not say that an object was not there.
	if _, err := b.Stat(ctx, h); err != nil {
		return err
	}
	return b.translate(ctx, "remove "+h.String(), b.core.RemoveObject(ctx, b.opts.Bucket, b.object(h), minio.RemoveObjectOptions{}))
}
