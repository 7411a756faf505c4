package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/minio/minio-go/v7"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
)

// maxAnswer bounds an answer that is no part of a file, in bytes. A page of 1000
// names has less than 2 MiB.
const maxAnswer = 16 << 20

// bounded is a transport that bounds the answers which package minio reads whole. It
// reads files itself, and asks for a range.
type bounded struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil || resp.StatusCode == http.StatusPartialContent && r.Header.Get("Range") != "" {
		return resp, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{transport.Limited(resp.Body, maxAnswer), resp.Body}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified {
		// The client would follow it, with the login.
		resp.Header.Del("Location")
	}
	return resp, nil
}

// code is the code of an error of S3, or "".
func code(err error) string {
	var e minio.ErrorResponse
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// translate makes an error of package minio one of the backend.
func (b *Backend) translate(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), b.fail(fmt.Errorf("%s: %w", op, err), ""))
	}
	var e minio.ErrorResponse
	if !errors.As(err, &e) {
		return b.unreachable(op, err)
	}
	said := fmt.Errorf("%s: %s: %s", op, backend.Words(e.Code), backend.Words(e.Message))
	refused := fmt.Errorf("%w: %w", backend.ErrRefused, said)
	switch e.Code {
	case "NoSuchKey":
		return b.fail(fmt.Errorf("%s: %w", op, backend.ErrNotExist), "")
	case "NoSuchBucket":
		return b.noBucket(op)
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "XAdminUserNotFound":
		return b.fail(refused, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in repository.credentials_file are not those of this server")
	case "RequestTimeTooSkewed":
		return b.fail(refused, "the clocks of this host and of the server differ: set this one")
	case "AccessDenied":
		return b.fail(refused, "the keys are wrong, or may not do this; they need s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject, and s3:PutObjectRetention for object_lock")
	case "AuthorizationHeaderMalformed", "InvalidRegionName":
		return b.fail(refused, "give the bucket's region in repository.s3.region")
	case "ObjectLockConfigurationNotFoundError", "InvalidBucketObjectLockConfiguration":
		return b.fail(refused, hintLock)
	case "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage":
		return b.fail(refused, "the server is full")
	}
	if transient[e.Code] {
		return b.fail(said, "")
	}
	if e.Code == "InvalidRequest" && b.opts.Lock.Mode != "" {
		return b.fail(refused, hintLock)
	}
	return b.byStatus(e.StatusCode, said)
}

// transient are codes with a status of 400 to 499 whose cause may pass: somebody else
// writes the same, or what was sent arrived late, cut or changed.
var transient = map[string]bool{
	"RequestTimeout": true, "OperationAborted": true, "ConditionalRequestConflict": true,
	"BadDigest": true, "IncompleteBody": true, "XAmzContentSHA256Mismatch": true,
}

const hintLock = "object lock must be switched on when the bucket is made: aws s3api create-bucket --object-lock-enabled-for-bucket"

// byStatus is the error of a code that is not known.
func (b *Backend) byStatus(status int, said error) error {
	switch {
	case status >= 300 && status < 400:
		return b.fail(fmt.Errorf("%w: %w", backend.ErrRefused, said), "give the address of the bucket's own region, or repository.s3.region")
	case status == http.StatusInsufficientStorage:
		return b.fail(fmt.Errorf("%w: %w", backend.ErrRefused, said), "the server is full")
	case status == http.StatusInternalServerError:
		return b.fail(fmt.Errorf("%w: %w", backend.ErrServer, said), backend.HintFailed)
	case status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests:
		return b.fail(fmt.Errorf("%w: %w", backend.ErrRefused, said), "")
	}
	return b.fail(said, "")
}

// unreachable is the error of a request that got no answer, or none that could be
// read.
func (b *Backend) unreachable(op string, err error) error {
	var syntax *xml.SyntaxError
	if errors.Is(err, transport.ErrTooLong) || errors.As(err, &syntax) {
		return b.fail(fmt.Errorf("%s: %w: %w", op, backend.ErrHostile, err), "is this a server of S3?")
	}
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err // the place is said already
	}
	if transport.BadCertificate(err) {
		return b.fail(fmt.Errorf("%s: %w: %w", op, backend.ErrRefused, err), "give the certificate that signed the server's in repository.ca_file")
	}
	return b.fail(fmt.Errorf("%s: %w", op, err), transport.Hint(err))
}

func (b *Backend) noBucket(op string) error {
	return b.fail(fmt.Errorf("%w: %s: there is no bucket %q", backend.ErrRefused, op, b.opts.Bucket),
		fmt.Sprintf("make it: aws s3api create-bucket --bucket %s, with --object-lock-enabled-for-bucket if repository.s3.object_lock is wanted", b.opts.Bucket))
}

func (b *Backend) fail(err error, hint string) error {
	scheme := "https"
	if b.opts.Plain {
		scheme = "http"
	}
	place := fmt.Sprintf("s3:%s://%s/%s", scheme, b.opts.Endpoint, b.opts.Bucket)
	if b.opts.Prefix != "" {
		place += "/" + b.opts.Prefix
	}
	return &backend.Error{Place: place, Err: err, Hint: hint}
}
