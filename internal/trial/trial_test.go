package trial_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/health"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/trial"
	"github.com/drydock-vm/drydock/internal/vm"
)

// content is a disk in memory, of which what is behind bad cannot be read.
type content struct {
	*bytes.Reader
	bad int64
}

var errBad = errors.New("a piece is damaged")

func (c content) ReadAt(p []byte, off int64) (int, error) {
	if c.bad > 0 && off+int64(len(p)) > c.bad {
		return 0, errBad
	}
	return c.Reader.ReadAt(p, off)
}

func (c content) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length})
}

// options are those of a guest whose disks are in memory.
func options(t *testing.T, root, data content, g *testguest.Guest) trial.Options {
	t.Helper()
	return trial.Options{
		Name: "web", Folder: filepath.Join(t.TempDir(), "boot", "web"), Scratch: filepath.Join(t.TempDir(), "web"), Logs: t.TempDir(), Command: g.Command,
		Disks: []trial.Disk{{Name: "root", Path: g.RootPath, Content: root}, {Name: "data", Path: g.DataPath, Content: data}},
		Asked: []string{strings.TrimPrefix(g.URL(), "http://")},
		Probes: func(_ vm.Machine, _ int64, forward map[string]string) ([]health.Probe, error) {
			at := forward[strings.TrimPrefix(g.URL(), "http://")]
			return []health.Probe{health.HTTP(g.URL()+"/healthz", health.Expect{Connect: at})}, nil
		},
		Timeout: 2 * time.Minute, Interval: 100 * time.Millisecond, Tool: qemuimg.New(qemuimg.Options{}),
	}
}

// TestRun: a guest is healthy on disks that are in memory alone; content that cannot be
// read is told of, whatever the guest makes of it; and nothing is left in any case.
func TestRun(t *testing.T) {
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", DataFormat: testguest.Raw})
	read := func(path string) content {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return content{Reader: bytes.NewReader(data)}
	}
	root, data := read(g.RootPath), read(g.DataPath)
	bad := root
	bad.bad = 1 << 20
	called, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		root content
		want error
	}{
		{"good", t.Context(), root, nil}, {"damaged", t.Context(), bad, trial.ErrRead}, {"called off", called, root, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t, c.root, data, g)
			r, err := trial.Run(c.ctx, o)
			if !errors.Is(err, c.want) || c.want == nil && (err != nil || r.Healthy <= 0 || r.Read == 0) {
				t.Errorf("%+v, %v", r, err)
			}
			if c.want == trial.ErrRead && !errors.Is(err, errBad) {
				t.Errorf("why is not told: %v", err)
			}
			gone(t, o)
		})
	}
}
