package s3

import (
	"context"
	"errors"

	"github.com/minio/minio-go/v7"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Renew implements [backend.Renewer]: the retention of what is uploaded counts from
// now on. To make it longer takes no right beyond that to set one.
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
	return b.translate(ctx, "renew the retention of "+h.String(), err)
}
