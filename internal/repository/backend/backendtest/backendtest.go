// Package backendtest is the test of the contract that package backend states.
// Every implementation runs it.
package backendtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Weakness is what a place cannot do, whatever its backend does.
type Weakness int

const (
	// SeenWhileSaved is of servers that show a file while it arrives.
	SeenWhileSaved Weakness = 1 + iota
	// NoParity is of servers that keep restic's own kinds of file alone.
	NoParity
	// SavedByAny is of connections that break: what has come to be there meanwhile may
	// have been saved by anybody.
	SavedByAny
)

// Run tests the backends that fresh returns. Each is empty.
func Run(t *testing.T, fresh func(t *testing.T) backend.Backend, weak ...Weakness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, backend.Backend)
	}{
		{"SaveAndRead", testSaveAndRead},
		{"NeverChanges", testNeverChanges},
		{"Missing", testMissing},
		{"List", testList},
		{"Handles", testHandles},
		{"Cancelled", testCancelled},
		{"Replace", testReplace},
		{"Parity", func(t *testing.T, be backend.Backend) {
			testParity(t, be, slices.Contains(weak, NoParity))
		}},
		{"Concurrent", func(t *testing.T, be backend.Backend) {
			testConcurrent(t, be, weak)
		}},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, fresh(t)) })
	}
}

var named = []backend.FileType{backend.KeyFile, backend.LockFile, backend.SnapshotFile, backend.IndexFile, backend.PackFile}

// handle returns a handle with a name that depends on content.
func handle(t backend.FileType, content []byte) backend.Handle {
	if t == backend.ConfigFile {
		return backend.Handle{Type: t}
	}
	sum := sha256.Sum256(content)
	return backend.Handle{Type: t, Name: hex.EncodeToString(sum[:])}
}

func save(t *testing.T, be backend.Backend, ft backend.FileType, content []byte) backend.Handle {
	t.Helper()
	h := handle(ft, content)
	if err := be.Save(t.Context(), h, content); err != nil {
		t.Fatalf("save %s: %v", h, err)
	}
	return h
}

func random(size int) []byte {
	p := make([]byte, size)
	_, _ = rand.Read(p) // never fails: see its documentation
	return p
}

func testSaveAndRead(t *testing.T, be backend.Backend) {
	for _, ft := range append(named, backend.ConfigFile) {
		content := random(100_000)
		h := save(t, be, ft, content)
		for _, r := range []struct{ off, size int }{{0, 100_000}, {0, 1}, {99_999, 1}, {50_000, 123}, {7, 0}} {
			got := make([]byte, r.size)
			n, err := be.ReadAt(t.Context(), h, got, int64(r.off))
			if n != r.size || err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, content[r.off:r.off+r.size]) {
				t.Errorf("%s: read %d of %d bytes at %d, %v", h, n, r.size, r.off, err)
			}
		}
		for off, want := range map[int64]int{99_990: 10, 100_000: 0, 200_000: 0} {
			n, err := be.ReadAt(t.Context(), h, make([]byte, 20), off)
			if n != want || !errors.Is(err, io.EOF) {
				t.Errorf("%s: 20 bytes at %d gave %d, %v; want %d and io.EOF", h, off, n, err, want)
			}
		}
		if n, err := be.ReadAt(t.Context(), h, make([]byte, 20), -1); err == nil || n != 0 {
			t.Errorf("%s: read at -1 gave %d, %v", h, n, err)
		}
		if info, err := be.Stat(t.Context(), h); err != nil || info.Size != 100_000 || info.Name != h.Name {
			t.Errorf("%s: stat gave %+v, %v", h, info, err)
		}
	}
	// Of locks the time counts, where it is told.
	info, err := be.Stat(t.Context(), save(t, be, backend.LockFile, []byte("lock")))
	if age := time.Since(info.ModTime); err != nil || !info.ModTime.IsZero() && (age > time.Hour || age < -time.Hour) {
		t.Errorf("a file that was stored just now is of %v, %v", info.ModTime, err)
	}
	if info, err := be.Stat(t.Context(), save(t, be, backend.LockFile, nil)); err != nil || info.Size != 0 {
		t.Errorf("an empty file: %+v, %v", info, err)
	}
}

func testNeverChanges(t *testing.T, be backend.Backend) {
	content := []byte("content")
	h := save(t, be, backend.PackFile, content)
	content[0] = 'X' // the caller's again
	if err := be.Save(t.Context(), h, []byte("other")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("saved over a file: %v", err)
	}
	got := make([]byte, len("content"))
	if _, err := be.ReadAt(t.Context(), h, got, 0); err != nil && !errors.Is(err, io.EOF) || string(got) != "content" {
		t.Errorf("the file now holds %q, %v", got, err)
	}
}

func testMissing(t *testing.T, be backend.Backend) {
	for _, ft := range append(named, backend.ConfigFile) {
		h := handle(ft, []byte("missing"))
		if _, err := be.ReadAt(t.Context(), h, make([]byte, 1), 0); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s: read gave %v", h, err)
		}
		if _, err := be.Stat(t.Context(), h); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s: stat gave %v", h, err)
		}
		if err := be.Remove(t.Context(), h); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s: remove gave %v", h, err)
		}
		if got := list(t, be, ft); len(got) != 0 {
			t.Errorf("%s: an empty backend lists %v", h, got)
		}
	}
}

func list(t *testing.T, be backend.Backend, ft backend.FileType) []string {
	t.Helper()
	var names []string
	err := be.List(t.Context(), ft, func(info backend.FileInfo) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Errorf("list %s: %v", ft, err)
	}
	slices.Sort(names)
	return names
}

func testList(t *testing.T, be backend.Backend) {
	for _, ft := range named {
		var want []string
		for range 5 {
			want = append(want, save(t, be, ft, random(10)).Name)
		}
		slices.Sort(want)
		if got := list(t, be, ft); !slices.Equal(got, want) {
			t.Errorf("%s: listed %v, want %v", ft, got, want)
		}
		if err := be.Remove(t.Context(), backend.Handle{Type: ft, Name: want[0]}); err != nil {
			t.Errorf("remove %s: %v", want[0], err)
		}
		if got := list(t, be, ft); !slices.Equal(got, want[1:]) {
			t.Errorf("%s: listed %v after a removal, want %v", ft, got, want[1:])
		}
		stop := errors.New("stop")
		calls := 0
		err := be.List(t.Context(), ft, func(info backend.FileInfo) error {
			calls++
			if info.Size != 10 {
				t.Errorf("%s: size %d, want 10", info.Name, info.Size)
			}
			return stop
		})
		if !errors.Is(err, stop) || calls != 1 {
			t.Errorf("%s: %d calls after yield said stop, %v", ft, calls, err)
		}
	}
}

func testHandles(t *testing.T, be backend.Backend) {
	valid := strings.Repeat("0a", 32)
	for _, h := range []backend.Handle{
		{}, {Type: "other", Name: valid}, {Type: "../keys", Name: valid},
		{Type: backend.ConfigFile, Name: valid}, {Type: backend.KeyFile},
		{Type: backend.KeyFile, Name: "../" + valid[3:]}, {Type: backend.PackFile, Name: valid[1:]},
		{Type: backend.PackFile, Name: strings.ToUpper(valid)}, {Type: backend.PackFile, Name: valid + "\x00"},
	} {
		_, readErr := be.ReadAt(t.Context(), h, make([]byte, 1), 0)
		_, statErr := be.Stat(t.Context(), h)
		for _, err := range []error{be.Save(t.Context(), h, nil), readErr, statErr, be.Remove(t.Context(), h)} {
			if err == nil || errors.Is(err, backend.ErrNotExist) {
				t.Errorf("handle %+v was tried: %v", h, err)
			}
		}
	}
}

func testCancelled(t *testing.T, be backend.Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	content := []byte("content")
	h := save(t, be, backend.IndexFile, content)
	cancel()
	_, readErr := be.ReadAt(ctx, h, make([]byte, 1), 0)
	_, statErr := be.Stat(ctx, h)
	for i, err := range []error{
		be.Save(ctx, handle(backend.IndexFile, []byte("other")), nil), readErr, statErr,
		be.List(ctx, backend.IndexFile, func(backend.FileInfo) error { return nil }), be.Remove(ctx, h),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("method %d with a cancelled context: %v", i, err)
		}
	}
	if got := list(t, be, backend.IndexFile); !slices.Equal(got, []string{h.Name}) {
		t.Errorf("a cancelled save or remove had an effect: %v", got)
	}
}

// Where a file can be replaced, it is, whole; one that is not there is made.
func testReplace(t *testing.T, be backend.Backend) {
	r, ok := be.(backend.Replacer)
	if !ok {
		return
	}
	content := random(100_000)
	h := save(t, be, backend.PackFile, content[:50_000])
	missing := handle(backend.PackFile, []byte("missing"))
	for _, h := range []backend.Handle{h, missing} {
		err := r.Replace(t.Context(), h, content)
		if errors.Is(err, backend.ErrRefused) { // around a backend that cannot
			return
		}
		if err != nil {
			t.Fatalf("replace %s: %v", h, err)
		}
		got := make([]byte, len(content))
		if n, err := be.ReadAt(t.Context(), h, got, 0); n != len(got) || !bytes.Equal(got, content) {
			t.Errorf("%s holds %d bytes, other ones, after it was replaced: %v", h, n, err)
		}
	}
	if got := list(t, be, backend.PackFile); len(got) != 2 {
		t.Errorf("%d files are listed after two were replaced", len(got))
	}
	if err := r.Replace(t.Context(), backend.Handle{Type: backend.PackFile, Name: "../x"}, content); err == nil {
		t.Error("a handle that is none was replaced")
	}
}

// Parity is kept as packs are, or refused.
func testParity(t *testing.T, be backend.Backend, refused bool) {
	content := random(5000)
	h := handle(backend.ParityFile, content)
	if refused {
		if err := be.Save(t.Context(), h, content); !errors.Is(err, backend.ErrRefused) {
			t.Errorf("parity was not refused: %v", err)
		}
		if _, err := be.Stat(t.Context(), h); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("parity that was refused: %v", err)
		}
		return
	}
	save(t, be, backend.ParityFile, content)
	got := make([]byte, len(content))
	if n, err := be.ReadAt(t.Context(), h, got, 0); n != len(got) || !bytes.Equal(got, content) {
		t.Errorf("read %d bytes of parity, %v", n, err)
	}
	if got := list(t, be, backend.ParityFile); !slices.Equal(got, []string{h.Name}) {
		t.Errorf("listed %v", got)
	}
	if got := list(t, be, backend.PackFile); len(got) != 0 {
		t.Errorf("parity is listed among the packs: %v", got)
	}
	if err := be.Remove(t.Context(), h); err != nil {
		t.Errorf("remove: %v", err)
	}
}

func testConcurrent(t *testing.T, be backend.Backend, weak []Weakness) {
	content := random(1 << 20)
	h := handle(backend.PackFile, content)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			switch err := be.Save(t.Context(), h, content); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, backend.ErrExist):
				t.Errorf("save: %v", err)
			}
		})
		if slices.Contains(weak, SeenWhileSaved) {
			continue
		}
		wg.Go(func() {
			// A file that can be seen is whole.
			if info, err := be.Stat(t.Context(), h); err == nil && info.Size != int64(len(content)) {
				t.Errorf("saw %d bytes of %d", info.Size, len(content))
			}
			_ = be.List(t.Context(), h.Type, func(info backend.FileInfo) error {
				if info.Size != int64(len(content)) {
					t.Errorf("listed %d bytes of %d", info.Size, len(content))
				}
				return nil
			})
		})
	}
	wg.Wait()
	if n := won.Load(); n < 1 || n > 1 && !slices.Contains(weak, SavedByAny) {
		t.Errorf("%d of 4 saved the file", n)
	}
	if info, err := be.Stat(t.Context(), h); err != nil || info.Size != int64(len(content)) {
		t.Errorf("the file has %d bytes of %d, %v", info.Size, len(content), err)
	}
}
