package verify

import (
	"encoding/binary"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// Where more is lost than is known one by one, what a repair brings back does not make the
// rest good.
func TestMoreIsLostThanIsKnown(t *testing.T) {
	r, err := repository.Create(t.Context(), &memory.Backend{}, []byte("x"), repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	back, _, err := r.SaveBlob(t.Context(), repository.DataBlob, []byte("is there again"))
	if err == nil {
		err = r.Flush(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{repo: r, lost: newLostBlobs(), broken: newBroken()}
	c.lost.add(repository.Blob{Type: repository.DataBlob, ID: back}, repository.ErrDamaged)
	for i := range uint64(maxLost + 1) {
		id := repository.ID(binary.BigEndian.AppendUint64(make([]byte, 24), i))
		c.lost.add(repository.Blob{Type: repository.DataBlob, ID: id}, repository.ErrDamaged)
	}
	c.broken.pack(&repository.PackError{Pack: back, Err: repository.ErrDamaged})
	if err := c.find(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := repository.ID(binary.BigEndian.AppendUint64(make([]byte, 24), maxLost))
	if err := c.lost.find(repository.Blob{Type: repository.DataBlob, ID: last}); err == nil {
		t.Error("a blob that is lost, beyond those that are known, is called good")
	}
}
