package retry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/backendtest"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
	"github.com/drydock-vm/drydock/internal/repository/backend/retry"
)

var errBroken = errors.New("the connection broke")

var (
	handle = backend.Handle{Type: backend.PackFile, Name: strings.Repeat("ab", 32)}
	other  = backend.Handle{Type: backend.PackFile, Name: strings.Repeat("cd", 32)}
	data   = []byte("what is to be saved")
)

// flaky breaks the first operations of each kind: before or after they took
// effect, or, for a Save, in the middle.
type flaky struct {
	memory.Backend
	mu     sync.Mutex // guards what follows
	left   map[string]int
	how    string // "before", "after", "half", "hang"
	err    error
	faults int
}

func (f *flaky) fault(op string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left[op] == 0 {
		return false
	}
	f.left[op]--
	f.faults++
	return true
}

func (f *flaky) Save(ctx context.Context, h backend.Handle, p []byte) error {
	if !f.fault("save") {
		return f.Backend.Save(ctx, h, p)
	}
	switch f.how {
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "after":
		return errors.Join(f.Backend.Save(ctx, h, p), f.err)
	case "half":
		return errors.Join(f.Backend.Save(ctx, h, p[:len(p)/2]), f.err)
	}
	return f.err
}

func (f *flaky) Remove(ctx context.Context, h backend.Handle) error {
	if !f.fault("remove") {
		return f.Backend.Remove(ctx, h)
	}
	if f.how == "after" {
		return errors.Join(f.Backend.Remove(ctx, h), f.err)
	}
	return f.err
}

func (f *flaky) Stat(ctx context.Context, h backend.Handle) (backend.FileInfo, error) {
	if f.fault("stat") {
		return backend.FileInfo{}, f.err
	}
	return f.Backend.Stat(ctx, h)
}

func (f *flaky) ReadAt(ctx context.Context, h backend.Handle, p []byte, off int64) (int, error) {
	if f.fault("read") {
		return copy(p[:len(p)/2], "rubbish"), f.err
	}
	return f.Backend.ReadAt(ctx, h, p, off)
}

func (f *flaky) List(ctx context.Context, t backend.FileType, yield func(backend.FileInfo) error) error {
	n := 0
	return f.Backend.List(ctx, t, func(info backend.FileInfo) error {
		if n++; n > 2 && f.fault("list") {
			return f.err
		}
		return yield(info)
	})
}

// steps are pauses that pass no time.
type steps struct {
	mu     sync.Mutex // guards pauses
	pauses []time.Duration
}

func (s *steps) sleep(ctx context.Context, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pauses = append(s.pauses, d)
	return ctx.Err()
}

func wrap(f *flaky) (*retry.Backend, *steps) {
	if f.err == nil {
		f.err = errBroken
	}
	s := &steps{}
	return retry.New(f, retry.Options{Sleep: s.sleep}), s
}

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Backend {
		be, _ := wrap(&flaky{left: map[string]int{"save": 1, "stat": 1, "read": 1, "list": 1}})
		return be
	}, backendtest.SavedByAny)
}

// Save and Remove report what is true, at whatever moment the connection broke.
func TestUnknownOutcome(t *testing.T) {
	for _, how := range []string{"before", "after", "half"} {
		for _, h := range []backend.Handle{handle, {Type: backend.ConfigFile}} {
			if how == "half" && h.Type == backend.ConfigFile {
				continue // a config file is never removed
			}
			f := &flaky{left: map[string]int{"save": 1, "remove": 1, "stat": 1}, how: how}
			be, _ := wrap(f)
			if err := be.Save(t.Context(), h, data); err != nil {
				t.Errorf("%s %s: save: %v", how, h, err)
			}
			got := make([]byte, len(data))
			if _, err := f.Backend.ReadAt(t.Context(), h, got, 0); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s %s: the file holds %q, %v", how, h, got, err)
			}
			if err := be.Save(t.Context(), h, data); !errors.Is(err, backend.ErrExist) {
				t.Errorf("%s %s: saved again: %v", how, h, err)
			}
			if err := be.Remove(t.Context(), h); err != nil {
				t.Errorf("%s %s: remove: %v", how, h, err)
			}
			if f.faults != 3 {
				t.Errorf("%s %s: %d faults happened", how, h, f.faults)
			}
		}
	}
}

// Another's config file is no success of ours, and stays.
func TestConfigOfAnother(t *testing.T) {
	f := &flaky{left: map[string]int{"save": 1}, how: "before"}
	be, _ := wrap(f)
	config := backend.Handle{Type: backend.ConfigFile}
	f.left["save"] = 0
	if err := f.Save(t.Context(), config, []byte("what another has saved")[:len(data)]); err != nil {
		t.Fatal(err)
	}
	f.left["save"] = 1
	if err := be.Save(t.Context(), config, data); !errors.Is(err, backend.ErrExist) {
		t.Errorf("save: %v", err)
	}
	if info, err := f.Stat(t.Context(), config); err != nil || info.Size != int64(len(data)) {
		t.Errorf("the other's file: %+v, %v", info, err)
	}
}

// A Save that fails for good leaves no part of a file.
func TestNoHalfFile(t *testing.T) {
	for name, err := range map[string]error{"transient": errBroken, "refused": fmt.Errorf("%w: full", backend.ErrRefused)} {
		f := &flaky{left: map[string]int{"save": 1000}, how: "half", err: err}
		be, s := wrap(f)
		if got := be.Save(t.Context(), handle, data); !errors.Is(got, err) {
			t.Errorf("%s: %v", name, got)
		}
		if info, err := f.Stat(t.Context(), handle); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s: a file of %d bytes is left, %v", name, info.Size, err)
		}
		if name == "refused" && len(s.pauses) > 0 {
			t.Errorf("what was refused was tried again after %v", s.pauses)
		}
	}
}

// Pauses grow and end: soon for a place that has never answered, and for one that says
// that it has failed.
func TestPatience(t *testing.T) {
	for name, test := range map[string]struct {
		answered bool
		err      error
		most     time.Duration
	}{
		"first":   {false, errBroken, 20 * time.Second},
		"later":   {true, errBroken, 15 * time.Minute},
		"failing": {true, fmt.Errorf("%w: %w", backend.ErrServer, errBroken), 2 * time.Minute},
	} {
		f := &flaky{left: map[string]int{}, err: test.err}
		be, s := wrap(f)
		if test.answered {
			if err := be.Save(t.Context(), handle, data); err != nil {
				t.Fatal(err)
			}
		}
		f.left["stat"] = 1 << 20
		_, err := be.Stat(t.Context(), handle)
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "given up after") {
			t.Errorf("%s: %v", name, err)
		}
		var sum time.Duration
		for _, p := range s.pauses {
			sum += p
		}
		if sum > test.most || sum < test.most/4 || len(s.pauses) < 4 {
			t.Errorf("%s: %d pauses, %v together", name, len(s.pauses), sum)
		}
		if last := s.pauses[len(s.pauses)-1]; last < 2*s.pauses[0] {
			t.Errorf("%s: the pauses do not grow: %v", name, s.pauses)
		}
	}
}

// A server that hangs costs a bounded time, and others go on meanwhile.
func TestHang(t *testing.T) {
	f := &flaky{left: map[string]int{"save": 1}, how: "hang", err: errBroken}
	var reported []error
	be := retry.New(f, retry.Options{
		Connections: 2, Timeout: 50 * time.Millisecond,
		Sleep:  func(context.Context, time.Duration) error { return nil },
		Report: func(_ string, err error, _ time.Duration) { reported = append(reported, err) },
	})
	if err := be.Save(t.Context(), handle, data); err != nil {
		t.Errorf("save: %v", err)
	}
	if len(reported) != 1 || !errors.Is(reported[0], retry.ErrTimeout) {
		t.Errorf("reported: %v", reported)
	}
	f.left["save"] = 1
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := be.Save(ctx, other, data); !errors.Is(err, context.Canceled) {
		t.Errorf("a save that was cancelled: %v", err)
	}
}

// liar lists what no honest server does.
type liar struct {
	memory.Backend
	infos []backend.FileInfo
}

func (l *liar) List(_ context.Context, _ backend.FileType, yield func(backend.FileInfo) error) error {
	for _, info := range l.infos {
		if err := yield(info); err != nil {
			return err
		}
	}
	return nil
}

func TestHostileList(t *testing.T) {
	for name, info := range map[string]backend.FileInfo{
		"a path":          {Name: "../" + handle.Name},
		"a negative size": {Name: handle.Name, Size: -1},
		"a huge size":     {Name: handle.Name, Size: 1 << 50},
	} {
		be := retry.New(&liar{infos: []backend.FileInfo{info}}, retry.Options{})
		err := be.List(t.Context(), backend.PackFile, func(backend.FileInfo) error { return nil })
		if !errors.Is(err, backend.ErrHostile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	twice := backend.FileInfo{Name: handle.Name, Size: 1}
	be := retry.New(&liar{infos: []backend.FileInfo{twice, twice}}, retry.Options{})
	n := 0
	err := be.List(t.Context(), backend.PackFile, func(backend.FileInfo) error { n++; return nil })
	if n != 1 || err != nil {
		t.Errorf("a name that is listed twice came %d times, %v", n, err)
	}
}

// A read that broke in the middle is done again, and the end of a file is no
// failure.
func TestRead(t *testing.T) {
	f := &flaky{left: map[string]int{"read": 2}}
	be, s := wrap(f)
	if err := be.Save(t.Context(), handle, data); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data)+5)
	n, err := be.ReadAt(t.Context(), handle, got, 0)
	if n != len(data) || !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], data) || len(s.pauses) != 2 {
		t.Errorf("read %d, %v after %d pauses", n, err, len(s.pauses))
	}
}
