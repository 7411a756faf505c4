package s3

import (
	"context"
	"errors"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Renew implements [backend.Renewer]: the retention of what is uploaded counts from
// now on. To make it longer takes no right beyond that to set one; a server refuses to
// make it shorter, and one that lasts as long is left as it is (s3:GetObjectRetention).
func (b *Backend) Renew(ctx context.Context, h backend.Handle) error {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return err
	}
	l := b.opts.Lock
	if l.Mode == "" || h.Type == backend.LockFile {
		return nil
	}
	mode, until := minio.RetentionMode(l.Mode), b.opts.Now().Add(l.For).UTC()
	err := b.core.PutObjectRetention(ctx, b.opts.Bucket, b.object(h), minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until})
	if code(err) != "" && b.lasts(ctx, h, mode, until) {
		return nil
	}
	return b.translate(ctx, "renew the retention of "+h.String(), err)
}

// lasts reports whether a file has a retention that is as strict and as long already.
func (b *Backend) lasts(ctx context.Context, h backend.Handle, mode minio.RetentionMode, until time.Time) bool {
	info, err := b.core.StatObject(ctx, b.opts.Bucket, b.object(h), minio.StatObjectOptions{})
	if err != nil {
		return false
	}
	is := minio.RetentionMode(info.Metadata.Get("X-Amz-Object-Lock-Mode"))
	ends, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	return err == nil && (is == mode || is == minio.Compliance) && !ends.Before(until.Truncate(time.Second))
}
