package retry

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// maxFiles bounds a listing: 16 million packs of 16 MiB are 256 TiB. The names of
// as many take 1 GiB while they are listed.
const maxFiles = 1 << 24

// maxFileSize bounds what a listing may say of a file's size, in bytes.
const maxFileSize = 1 << 40

// List implements [backend.Backend]. Each name comes once, whatever the server
// says, and however often the listing was begun anew.
func (b *Backend) List(ctx context.Context, t backend.FileType, yield func(backend.FileInfo) error) error {
	seen := make(map[[32]byte]struct{})
	var stopped error
	err := b.do(ctx, "list "+string(t), listTime, func(try context.Context) error {
		err := b.be.List(try, t, func(info backend.FileInfo) error {
			var name [32]byte
			if t != backend.ConfigFile {
				if n, err := hex.Decode(name[:], []byte(info.Name)); err != nil || n != len(name) || !backend.ValidName(info.Name) {
					return fmt.Errorf("%w: it lists %q among %s", backend.ErrHostile, info.Name, t)
				}
			}
			if _, ok := seen[name]; ok {
				return nil
			}
			if len(seen) == maxFiles {
				return fmt.Errorf("%w: it lists more than %d files of %s", backend.ErrHostile, maxFiles, t)
			}
			if info.Size < 0 || info.Size > maxFileSize {
				return fmt.Errorf("%w: it lists %s/%s with %d bytes", backend.ErrHostile, t, info.Name, info.Size)
			}
			seen[name] = struct{}{}
			stopped = yield(info)
			return stopped
		})
		if stopped != nil {
			return nil // no failure of the backend
		}
		return err
	})
	if stopped != nil {
		return stopped
	}
	return err
}
