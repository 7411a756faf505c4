package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestCrashPoints stops a switch after each of its steps, as a power failure
// would, and lets another process (another Store) go on from what lies there:
// forward, and back. At each point the disk is whole, the old or the new one.
func TestCrashPoints(t *testing.T) {
	const old, fresh = "the old root", "the new root"
	for _, earlier := range []bool{false, true} { // is there a .previous of the switch before?
		for done := range len(steps("")) + 1 {
			for _, forward := range []bool{true, false} {
				t.Run(fmt.Sprintf("earlier %v, after step %d, forward %v", earlier, done, forward), func(t *testing.T) {
					dir := t.TempDir()
					path := filepath.Join(dir, "root")
					write(t, path, old)
					if earlier {
						write(t, path+previousSuffix, "an older root")
					}
					before := New(Options{Dir: filepath.Join(t.TempDir(), "images")})
					v, err := before.Import(context.Background(), "web", "7", bytes.NewReader([]byte(fresh)), Want{}, Meta{})
					if err != nil {
						t.Fatal(err)
					}
					if err := before.Prepare(context.Background(), v, Target{Path: path, Format: FormatRaw}); err != nil {
						t.Fatal(err)
					}
					for _, do := range steps(path)[:done] {
						if err := do(); err != nil {
							t.Fatal(err)
						}
					}
					want := old
					if done >= 3 {
						want = fresh
					}
					wantContent(t, path, want)

					after := New(Options{Dir: before.dir})
					switched, err := after.Switched(path, v)
					if err != nil || switched != (want == fresh) {
						t.Fatalf("switched is %v, %v; the disk is %s", switched, err, want)
					}
					if forward {
						if !switched {
							err = after.Switch(path)
						}
						if err == nil {
							err = after.Commit("vm", "root", path, v)
						}
						want = fresh
					} else {
						err = after.Undo(path)
						if err == nil {
							err = after.Discard(path)
						}
						want = old
					}
					if err != nil {
						t.Fatal(err)
					}
					wantContent(t, path, want)
					if forward {
						wantContent(t, path+previousSuffix, old)
					}
					if stage, err := after.Stage(path); err != nil || stage != Idle {
						t.Errorf("the stage is %s, %v", stage, err)
					}
					if left, err := after.allPrepared(); err != nil || len(left) != 0 {
						t.Errorf("records are left: %+v, %v", left, err)
					}
					for _, suffix := range []string{nextSuffix, partSuffix} {
						if _, err := os.Lstat(path + suffix); err == nil {
							t.Errorf("%s is left", path+suffix)
						}
					}
				})
			}
		}
	}
}

// TestCrashWhilePreparing leaves half a new disk behind.
func TestCrashWhilePreparing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root")
	write(t, path, "the old root")
	write(t, path+partSuffix, "half a ro")
	s := New(Options{Dir: filepath.Join(t.TempDir(), "images")})
	if stage, err := s.Stage(path); err != nil || stage != Idle {
		t.Errorf("the stage is %s, %v", stage, err)
	}
	if err := s.Discard(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path + partSuffix); err == nil {
		t.Error("the half is left")
	}
	wantContent(t, path, "the old root")
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is %q, %v; want %q", path, got, err, want)
	}
}
