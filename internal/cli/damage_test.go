package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
)

// TestTreeOfADamagedDisk: what could not be read is named, the rest is drawn, and
// the exit code is 3, with --json and without.
func TestTreeOfADamagedDisk(t *testing.T) {
	fsys := treetest.NewFake()
	fsys.File(treetest.Root, "bad", 3, treetest.Content{Data: []byte("x")})
	fsys.File(treetest.Root, "good", 4, treetest.Content{Data: []byte("y")})
	fsys.Fails[3] = &disk.Error{Layer: "fake", Structure: "inode 3", Offset: -1, Err: disk.ErrCorrupt}
	root, err := fsys.Inode(treetest.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, asJSON := range []bool{false, true} {
		var out, errs bytes.Buffer
		a := &app{stdout: &out, stderr: &errs, json: asJSON}
		err := a.draw(t.Context(), fsys, []byte("/"), root, 0)
		var exit *exitError
		if !errors.As(err, &exit) || exit.code != exitWarnings {
			t.Errorf("json %v: %v, want exit code %d", asJSON, err, exitWarnings)
		}
		if !strings.Contains(errs.String(), "bad: fake: inode 3") || !strings.Contains(out.String(), "good") {
			t.Errorf("json %v: %q, %q", asJSON, out.String(), errs.String())
		}
		if asJSON && !json.Valid(out.Bytes()) {
			t.Errorf("not JSON: %q", out.String())
		}
	}
}
