package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
)

const (
	// mediaV2 asks for version 2 of the protocol.
	mediaV2 = "application/vnd.x.restic.rest.v2"
	// maxEntry bounds one entry of a listing, in bytes, with what a decoder
	// reads ahead.
	maxEntry = 64 << 10
)

// List implements [backend.Backend].
func (b *Backend) List(ctx context.Context, t backend.FileType, yield func(backend.FileInfo) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t == backend.ConfigFile {
		return backend.ListConfig(ctx, b, yield)
	}
	if t == backend.ParityFile {
		return nil // the protocol has none
	}
	op := "list " + string(t)
	resp, err := b.send(ctx, request{method: http.MethodGet, url: b.base + string(t) + "/", accept: mediaV2})
	if err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound: // no folder is an empty list
		return resp.Body.Close()
	default:
		return b.status(resp, op)
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	return b.decodeList(ctx, op, t, resp, yield)
}

// decodeList reads a listing entry by entry.
func (b *Backend) decodeList(ctx context.Context, op string, t backend.FileType, resp *http.Response, yield func(backend.FileInfo) error) error {
	bad := func(err error) error {
		var broken *json.SyntaxError
		var kind *json.UnmarshalTypeError
		if errors.As(err, &broken) || errors.As(err, &kind) || errors.Is(err, transport.ErrTooLong) {
			return b.fail(fmt.Errorf("%s: %w: %w", op, backend.ErrHostile, err), "is this a server of restic's REST protocol?")
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return b.unreachable(ctx, fmt.Errorf("%s: %w", op, err))
	}
	v2 := strings.HasPrefix(resp.Header.Get("Content-Type"), mediaV2)
	body := transport.Limited(resp.Body, maxEntry)
	d := json.NewDecoder(body)
	if first, err := d.Token(); err != nil {
		return bad(err)
	} else if first == nil { // "null" is what some make of an empty list
		return nil
	} else if first != json.Delim('[') {
		return b.fail(fmt.Errorf("%s: %w: it begins with %s", op, backend.ErrHostile, strconv.QuoteToASCII(fmt.Sprint(first))), "is this a server of restic's REST protocol?")
	}
	for d.More() {
		if err := ctx.Err(); err != nil {
			return err
		}
		body.Allow(maxEntry)
		info, err := b.entry(ctx, d, t, v2)
		if err != nil {
			return bad(err)
		}
		if !backend.ValidName(info.Name) {
			continue
		}
		if err := yield(info); err != nil {
			return err
		}
	}
	body.Allow(maxEntry)
	if _, err := d.Token(); err != nil {
		return bad(err)
	}
	return ctx.Err()
}

// entry reads one entry of a listing. Version 1 has no sizes: each file is asked.
func (b *Backend) entry(ctx context.Context, d *json.Decoder, t backend.FileType, v2 bool) (backend.FileInfo, error) {
	if v2 {
		var e struct {
			Name string `json:"name"`
			Size int64  `json:"size"`
		}
		err := d.Decode(&e)
		return backend.FileInfo{Name: e.Name, Size: e.Size}, err
	}
	var name string
	if err := d.Decode(&name); err != nil || !backend.ValidName(name) {
		return backend.FileInfo{}, err
	}
	info, err := b.Stat(ctx, backend.Handle{Type: t, Name: name})
	if errors.Is(err, backend.ErrNotExist) {
		return backend.FileInfo{}, nil // removed meanwhile
	}
	return info, err
}
