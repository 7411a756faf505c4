package image_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/testmount"
)

var ctx = context.Background()

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// newStore returns a store whose clock moves by a second at each look.
func newStore(t *testing.T) (*image.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "images")
	return storeIn(dir), dir
}

func storeIn(dir string) *image.Store {
	now := time.Date(2026, 1, 1, 2, 30, 0, 0, time.UTC)
	return image.New(image.Options{Dir: dir, Now: func() time.Time {
		now = now.Add(time.Second)
		return now
	}})
}

// disk is the content of a disk: data, a hole, and data again.
func disk(fill byte) []byte {
	b := make([]byte, 3<<20)
	for i := range 1 << 16 {
		b[i] = fill
	}
	b[len(b)-1] = fill
	return b
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func load(t *testing.T, s *image.Store, version string, content []byte) image.Version {
	t.Helper()
	want := image.Want{Size: int64(len(content)), SHA256: digest(content)}
	v, err := s.Import(ctx, "web", version, bytes.NewReader(content), want, image.Meta{Origin: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// files lists everything below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); err == nil && rel != "." && rel != ".lock" {
			all = append(all, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got := files(t, dir); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s holds %v, want %v", dir, got, want)
	}
}

func current(s *image.Store) string {
	v, err := s.Current("web")
	if errors.Is(err, image.ErrNoVersion) {
		return ""
	}
	if err != nil {
		return err.Error()
	}
	return v.ID
}

func TestImport(t *testing.T) {
	s, dir := newStore(t)
	content := disk(1)
	v := load(t, s, "7", content)
	if v.Size != int64(len(content)) || v.SHA256 != digest(content) || v.Meta.Origin != "test" {
		t.Errorf("imported %+v", v)
	}
	got, err := os.ReadFile(s.DiskPath(v))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the store has %d bytes, %v", len(got), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.DiskPath(v), &st); err != nil || st.Blocks*512 > 256<<10 {
		t.Errorf("the file takes %d bytes, %v: zeros must be holes", st.Blocks*512, err)
	}
	wantFiles(t, dir, "web", "web/7", "web/7/disk.raw", "web/7/version.json")
	again, err := s.Get("web", "7")
	if err != nil || again != v {
		t.Errorf("Get says %+v, %v; want %+v", again, err, v)
	}
}

func TestImportUnchanged(t *testing.T) {
	s, dir := newStore(t)
	v := load(t, s, "7", disk(1))
	unread := iotest.ErrReader(errors.New("it was read"))
	got, err := s.Import(ctx, "web", "8", unread, image.Want{SHA256: v.SHA256}, image.Meta{})
	if !errors.Is(err, image.ErrUnchanged) || got != v {
		t.Errorf("with the digest known before: %+v, %v", got, err)
	}
	got, err = s.Import(ctx, "web", "", bytes.NewReader(disk(1)), image.Want{}, image.Meta{})
	if !errors.Is(err, image.ErrUnchanged) || got != v {
		t.Errorf("with the digest known after: %+v, %v", got, err)
	}
	wantFiles(t, dir, "web", "web/7", "web/7/disk.raw", "web/7/version.json")
	if _, err := s.Import(ctx, "web", "7", bytes.NewReader(disk(2)), image.Want{}, image.Meta{}); !errors.Is(err, image.ErrExists) {
		t.Errorf("other bytes for the same version: %v", err)
	}
	named, err := s.Import(ctx, "web", "", bytes.NewReader(disk(2)), image.Want{}, image.Meta{})
	if err != nil || !strings.HasPrefix(named.ID, "20260101T0230") || !strings.HasSuffix(named.ID, named.SHA256[:8]) {
		t.Errorf("a version without a name: %+v, %v", named, err)
	}
}

// Whatever is wrong with what comes in, nothing is left of it.
func TestImportRefuses(t *testing.T) {
	content := disk(1)
	flipped := bytes.Clone(content)
	flipped[1<<20] ^= 1
	right := image.Want{Size: int64(len(content)), SHA256: digest(content)}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	broken := errors.New("the worker died")
	for _, tc := range []struct {
		name string
		ctx  context.Context
		r    io.Reader
		want image.Want
		err  error
	}{
		{"flipped byte", ctx, bytes.NewReader(flipped), right, image.ErrDigest},
		{"cut short", ctx, bytes.NewReader(content[:1<<20]), right, image.ErrSize},
		{"too long", ctx, io.MultiReader(bytes.NewReader(content), strings.NewReader("x")), right, image.ErrSize},
		{"endless", ctx, endless{}, right, image.ErrSize},
		{"empty", ctx, strings.NewReader(""), image.Want{}, image.ErrSize},
		{"read error", ctx, io.MultiReader(bytes.NewReader(content[:4096]), iotest.ErrReader(broken)), right, broken},
		{"canceled", canceled, bytes.NewReader(content), right, context.Canceled},
		{"huge", ctx, bytes.NewReader(content), image.Want{Size: image.MaxSize + 1}, image.ErrSize},
		{"no digest", ctx, bytes.NewReader(content), image.Want{SHA256: "ABC"}, image.ErrDigest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, dir := newStore(t)
			v, err := s.Import(tc.ctx, "web", "7", tc.r, tc.want, image.Meta{})
			if !errors.Is(err, tc.err) || v != (image.Version{}) {
				t.Errorf("got %+v, %v; want %v", v, err, tc.err)
			}
			for _, left := range files(t, dirOrEmpty(t, dir)) {
				if left != "web" {
					t.Errorf("%s is left behind", left)
				}
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func dirOrEmpty(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDigestErrorSaysBoth(t *testing.T) {
	s, _ := newStore(t)
	_, err := s.Import(ctx, "web", "7", bytes.NewReader(disk(1)), image.Want{SHA256: digest(disk(2))}, image.Meta{})
	var wrong *image.DigestError
	if !errors.As(err, &wrong) || wrong.Got != digest(disk(1)) || wrong.Want != digest(disk(2)) {
		t.Errorf("got %v", err)
	}
}

func TestHostileNames(t *testing.T) {
	s, dir := newStore(t)
	load(t, s, "7", disk(1))
	before := files(t, dir)
	for _, name := range []string{"", ".", "..", "../x", "/etc", "a/b", ".lock", ".installed", "a\x00b", "a\nb", "-x", "state.json", strings.Repeat("x", 64)} {
		_, err1 := s.Import(ctx, name, "7", bytes.NewReader(disk(2)), image.Want{}, image.Meta{})
		_, err2 := s.List(name)
		errs := []error{err1, err2, s.Promote(name, "7"), s.Remove("web", name), s.Commit("web", name, "/x", image.Version{}), image.ValidName(name)}
		if name != "" { // an empty version is made up
			_, err := s.Import(ctx, "web", name, bytes.NewReader(disk(2)), image.Want{}, image.Meta{})
			errs = append(errs, err)
		}
		for i, err := range errs {
			if !errors.Is(err, image.ErrName) {
				t.Errorf("name %q, call %d: %v", name, i, err)
			}
		}
	}
	wantFiles(t, dir, before...)
}

// An import of a process that was killed is removed by the next one; one that
// is under way is not.
func TestUnfinishedImports(t *testing.T) {
	s, dir := newStore(t)
	dead := filepath.Join(dir, "web", ".import-dead")
	if err := os.MkdirAll(dead, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dead, "disk.raw"), disk(1), 0o600); err != nil {
		t.Fatal(err)
	}
	nested := io.MultiReader(readFunc(func() error {
		load(t, s, "8", disk(2)) // while 7 is under way
		return nil
	}), bytes.NewReader(disk(1)))
	if _, err := s.Import(ctx, "web", "7", nested, image.Want{}, image.Meta{}); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, "web", "web/7", "web/7/disk.raw", "web/7/version.json", "web/8", "web/8/disk.raw", "web/8/version.json")
}

// readFunc is a reader of nothing that calls a function first.
type readFunc func() error

func (f readFunc) Read([]byte) (int, error) {
	if err := f(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

func TestImportDiskFull(t *testing.T) {
	dir := testmount.New(t, "8M", "mkfs.ext4", "-q", "-F", "-m", "0")
	s := storeIn(filepath.Join(dir, "images"))
	_, err := s.Import(ctx, "web", "7", io.LimitReader(endlessData{}, 64<<20), image.Want{Size: 64 << 20}, image.Meta{})
	var space *image.SpaceError
	if !errors.As(err, &space) || space.Need != 64<<20 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want a SpaceError", err)
	}
	wantFiles(t, filepath.Join(dir, "images"), "web")
}

type endlessData struct{}

func (endlessData) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i) | 1
	}
	return len(p), nil
}

func TestPromoteBadRollback(t *testing.T) {
	s, _ := newStore(t)
	if v, err := s.Current("web"); !errors.Is(err, image.ErrNoVersion) {
		t.Fatalf("an empty store has the current version %v, %v", v, err)
	}
	for i := range 4 {
		load(t, s, fmt.Sprint(i), disk(byte(i+1)))
	}
	step := func(what string, err error, wantCurrent string) {
		t.Helper()
		if err != nil || current(s) != wantCurrent {
			t.Errorf("%s: current is %q, %v; want %q", what, current(s), err, wantCurrent)
		}
	}
	rollback := func() error { _, err := s.Rollback("web"); return err }
	step("import does not promote", nil, "")
	step("promote 0", s.Promote("web", "0"), "0")
	step("promote 1", s.Promote("web", "1"), "1")
	step("promote 2", s.Promote("web", "2"), "2")
	step("promote 2 again", s.Promote("web", "2"), "2")
	step("mark bad what is not current", s.MarkBad("web", "1", "too slow"), "2")
	step("mark the current one bad", s.MarkBad("web", "2", "tcp 127.0.0.1:80: refused"), "0")
	if err := s.Promote("web", "2"); !errors.Is(err, image.ErrBad) {
		t.Errorf("promoting a bad one: %v", err)
	}
	v, err := s.Get("web", "2")
	if err != nil || !v.Bad || v.BadReason != "tcp 127.0.0.1:80: refused" {
		t.Errorf("the bad one is %+v, %v", v, err)
	}
	if v, err := s.Newest("web"); err != nil || v.ID != "3" {
		t.Errorf("the newest is %+v, %v", v, err)
	}
	step("promote 3", s.Promote("web", "3"), "3")
	step("roll back", rollback(), "0")
	if err := rollback(); !errors.Is(err, image.ErrNoVersion) {
		t.Errorf("nothing is left to roll back to: %v", err)
	}
	step("the last one goes bad", s.MarkBad("web", "0", "x"), "")
	step("and good", s.UnmarkBad("web", "0"), "")
	step("promote 0", s.Promote("web", "0"), "0")
	if err := s.Promote("web", "9"); !errors.Is(err, image.ErrNoVersion) {
		t.Errorf("promoting what is not there: %v", err)
	}
	versions, err := s.List("web")
	if err != nil || len(versions) != 4 || versions[0].ID != "3" || !versions[3].Current {
		t.Errorf("the list is %+v, %v", versions, err)
	}
}

func TestRemoveAndPrune(t *testing.T) {
	s, dir := newStore(t)
	var versions []image.Version
	for i := range 8 {
		versions = append(versions, load(t, s, fmt.Sprint(i), disk(byte(i+1))))
	}
	path := filepath.Join(t.TempDir(), "root.raw")
	if err := os.WriteFile(path, disk(99), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1} { // 1 is installed, and 0 was before it
		if err := s.Commit("vm", "root", path, versions[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Prepare(ctx, versions[2], image.Target{Path: path, Format: "raw"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"3", "4"} { // 4 is current, and 3 was before it
		if err := s.Promote("web", id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"0", "1", "2", "3", "4"} {
		if err := s.Remove("web", id); !errors.Is(err, image.ErrInUse) {
			t.Errorf("removing %s: %v", id, err)
		}
	}
	removed, err := s.Prune("web", 2)
	if err != nil || len(removed) != 1 || removed[0].ID != "5" {
		t.Errorf("pruned %v, %v; want 5", removed, err)
	}
	if err := s.Remove("web", "6"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("web", "6"); !errors.Is(err, image.ErrNoVersion) {
		t.Errorf("removing it again: %v", err)
	}
	var left []string
	for _, f := range files(t, filepath.Join(dir, "web")) {
		if !strings.Contains(f, "/") {
			left = append(left, f)
		}
	}
	if got := strings.Join(left, " "); got != "0 1 2 3 4 7 state.json" {
		t.Errorf("left are %s", got)
	}
}

func TestCommitRecords(t *testing.T) {
	s, _ := newStore(t)
	if in, ok, err := s.Installed("vm", "root"); ok || err != nil {
		t.Fatalf("nothing was installed, and there is %+v, %v", in, err)
	}
	a, b := load(t, s, "a", disk(1)), load(t, s, "b", disk(2))
	for _, v := range []image.Version{a, a, b, b} {
		if err := s.Commit("vm", "root", "/no/such/disk", v); err != nil {
			t.Fatal(err)
		}
	}
	in, ok, err := s.Installed("vm", "root")
	if err != nil || !ok || in.Version != "b" || in.SHA256 != b.SHA256 || in.Previous == nil || in.Previous.Version != "a" {
		t.Errorf("installed is %+v, %v, %v", in, ok, err)
	}
	if all, err := s.AllInstalled(); err != nil || len(all) != 1 {
		t.Errorf("all that is installed: %+v, %v", all, err)
	}
	for _, c := range []struct{ sha256, want string }{{a.SHA256, "a"}, {"", ""}, {b.SHA256, "b"}, {strings.Repeat("0", 64), ""}, {a.SHA256, "a"}} {
		if err := s.Restored("vm", "root", "/no/such/disk", a.Image, c.sha256); err != nil {
			t.Fatal(err)
		}
		if in, ok, err := s.Installed("vm", "root"); in.Version != c.want || ok != (c.want != "") || err != nil {
			t.Errorf("restored from a backup with %q: %+v, %v", c.sha256, in, err)
		}
	}
	if err := s.Forget("vm", "root"); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Installed("vm", "root"); ok || err != nil {
		t.Errorf("after it is forgotten: %v, %v", ok, err)
	}
}
