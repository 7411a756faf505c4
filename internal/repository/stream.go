package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/internal/repository/cut"
)

// The sizes of chunks, which restic has fixed: other sizes would be as good to
// read, and share nothing with what restic stored.
const (
	MinChunk = 512 << 10 // bytes; a smaller file is one chunk
	MaxChunk = 8 << 20   // bytes
)

// NewCutter returns what cuts streams, one after the other, where restic cuts them in
// this repository.
func (r *Repository) NewCutter() *cut.Cutter { return cut.New(r.tables(), MinChunk, MaxChunk) }

// chunkBuffers holds *[]byte with room for MinChunk bytes or more.
var chunkBuffers sync.Pool

func chunkBuffer() *[]byte {
	if b, ok := chunkBuffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, MinChunk)
	return &b
}

// SaveStream cuts rd into chunks as restic does, saves them on all cores, and
// returns their IDs in order, the bytes read, and the bytes that they take. An
// empty stream has no chunks, and a slice that is not nil. What
// [Repository.SaveBlob] says holds here too. Several streams can be saved at
// once. An error of rd is returned as it is.
func (r *Repository) SaveStream(ctx context.Context, rd io.Reader) (content []ID, size, stored int64, err error) {
	buf := chunkBuffer()
	defer chunkBuffers.Put(buf)
	first := (*buf)[:MinChunk]
	n, err := io.ReadFull(rd, first)
	switch {
	case errors.Is(err, io.EOF): // n is 0
		return []ID{}, 0, 0, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		id, stored, err := r.SaveBlob(ctx, DataBlob, first[:n])
		return []ID{id}, int64(n), stored, err
	case err != nil:
		return nil, 0, 0, err
	}
	return r.saveChunks(ctx, io.MultiReader(bytes.NewReader(first), rd))
}

// saveChunks does the work of SaveStream for what is more than one chunk.
func (r *Repository) saveChunks(ctx context.Context, rd io.Reader) (content []ID, size, stored int64, err error) {
	c := r.NewCutter()
	c.Reset(rd)
	var mu sync.Mutex // guards content and stored
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for ctx.Err() == nil {
		buf := chunkBuffer()
		chunk, readErr := c.Next(*buf)
		if readErr != nil {
			chunkBuffers.Put(buf)
			if !errors.Is(readErr, io.EOF) {
				err = readErr
			}
			break
		}
		size += int64(len(chunk))
		mu.Lock()
		n := len(content)
		content = append(content, ID{})
		mu.Unlock()
		g.Go(func() error {
			id, took, err := r.SaveBlob(ctx, DataBlob, chunk)
			*buf = chunk[:0] // it may have grown
			chunkBuffers.Put(buf)
			mu.Lock()
			defer mu.Unlock()
			content[n] = id
			stored += took
			return err
		})
	}
	ctxErr := ctx.Err()
	if saveErr := g.Wait(); saveErr != nil {
		err = saveErr
	} else if err == nil {
		err = ctxErr
	}
	if err != nil {
		return nil, 0, 0, err
	}
	return content, size, stored, nil
}
