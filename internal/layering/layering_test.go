package layering_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/drydock-vm/drydock/"

// floors says on which floor each room lies. A room imports rooms of lower
// floors, and its own contract (internal/vm from internal/vm/qemu). The longest
// name that fits decides.
var floors = map[string]int{
	"disk": 0,

	"internal/atomicfile":  1,
	"internal/garbage":     1,
	"internal/config":      1,
	"internal/credentials": 1,
	"internal/escape":      1,
	"internal/flock":       1,
	"internal/imagelock":   1,
	"internal/location":    1,
	"internal/printed":     1,
	"internal/pattern":     1,
	"internal/qemuimg":     1,

	"internal/fusefs":     2,
	"internal/health":     2,
	"internal/image":      2,
	"internal/nbd":        2,
	"internal/repository": 2,
	"internal/sandbox":    2,
	"internal/snapshot":   2,
	"internal/state":      2,
	"internal/unit":       2,
	"internal/vm":         2,
	"internal/writervm":   2,

	"internal/backup":     3,
	"internal/backupdisk": 3,
	"internal/build":      3,
	"internal/copy":       3,
	"internal/definition": 3,
	"internal/diff":       3,
	"internal/fill":       3,
	"internal/find":       3,
	"internal/harvest":    3,
	"internal/newimage":   3,
	"internal/rebuild":    3,
	"internal/restore":    3,
	"internal/retain":     3,
	"internal/round":      3,
	"internal/sink":       3,
	"internal/tarball":    3,
	"internal/trial":      3,
	"internal/verify":     3,

	"internal/demo": 4,
	"internal/cli":  5,
	"cmd":           6,
}

// within lists the imports inside one floor that are meant.
var within = map[string][]string{
	"internal/atomicfile": {},
	"internal/config":     {"internal/pattern", "internal/location"},
	"internal/imagelock":  {"internal/escape"},
	"internal/qemuimg":    {"internal/escape", "internal/imagelock", "internal/printed"},
	"internal/backupdisk": {"internal/newimage", "internal/definition"}, // its skeleton, and where that lies
	"internal/definition": {"internal/backup"},                          // it is made of a backup's objects
	"internal/fill":       {"internal/restore"},                         // how a disk takes the place of another
	"internal/harvest":    {"internal/build"},
	"internal/newimage":   {"internal/diff"},                                                                                    // an image is compared with the backup
	"internal/rebuild":    {"internal/backup", "internal/definition", "internal/restore", "internal/newimage", "internal/diff"}, // a VM is made of all of them
	"internal/restore":    {"internal/backup", "internal/definition"},                                                           // what a backup's tags say
	"internal/sink":       {"internal/tarball"},
	"internal/retain":     {"internal/backup"}, // the same
}

// testOnly rooms are imported by tests alone.
var testOnly = []string{"internal/benchdisk", "internal/testguest", "internal/testlibvirt", "internal/testprocess", "internal/testlvm", "internal/testmount", "internal/testserver", "internal/testsystemd", "internal/layering", "internal/vm/vmtest", "internal/repository/testrepo", "disk/internal/disktest"}

// readers are what only the sandbox may import: they parse what a guest wrote.
var readers = []string{
	"disk/qcow2", "disk/raw", "disk/partition", "disk/lvm", "disk/ext4", "disk/xfs", "disk/btrfs", "disk/fat", "disk/layout", "disk/guest",
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	c := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(out); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

// room returns the longest entry of floors that name lies in.
func room(name string) (string, int, bool) {
	best, floor := "", 0
	for r, f := range floors {
		if (name == r || strings.HasPrefix(name, r+"/")) && len(r) > len(best) {
			best, floor = r, f
		}
	}
	return best, floor, best != ""
}

func under(name string, rooms []string) bool {
	for _, r := range rooms {
		if name == r || strings.HasPrefix(name, r+"/") {
			return true
		}
	}
	return false
}

func TestFloors(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if under(name, testOnly) {
			continue
		}
		from, floor, ok := room(name)
		if !ok {
			t.Errorf("%s lies on no floor: give it one in this test", name)
			continue
		}
		for _, i := range p.Imports {
			imported, ours := strings.CutPrefix(i, module)
			if !ours {
				if from == "disk" && strings.Contains(strings.SplitN(i, "/", 2)[0], ".") && !strings.HasPrefix(i, "github.com/klauspost/compress") {
					t.Errorf("%s imports %s: disk stands on the standard library and decompressors alone", name, i)
				}
				continue
			}
			if under(imported, testOnly) {
				t.Errorf("%s imports %s, which is for tests", name, imported)
				continue
			}
			to, below, ok := room(imported)
			if ok && to != from && below >= floor && !under(to, within[from]) {
				t.Errorf("%s (floor %d) imports %s (floor %d)", name, floor, imported, below)
			}
			if under(imported, readers) && !strings.HasPrefix(name, "disk/") && !strings.HasPrefix(name, "internal/sandbox") {
				t.Errorf("%s imports %s: only the sandbox may", name, imported)
			}
		}
	}
}

// TestDriversStandAlone: drivers of one contract never import each other.
func TestDriversStandAlone(t *testing.T) {
	drivers := []string{"internal/vm/qemu", "internal/vm/systemd", "internal/vm/libvirt"}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, i := range p.Imports {
			imported := strings.TrimPrefix(i, module)
			if under(name, drivers) && under(imported, drivers) {
				t.Errorf("%s imports %s", name, imported)
			}
		}
	}
}

// TestConfigStopsAtTheCommandLine: nobody but cli takes the configuration.
func TestConfigStopsAtTheCommandLine(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == "internal/cli" || name == "internal/demo" {
			continue
		}
		for _, i := range p.Imports {
			if i == module+"internal/config" {
				t.Errorf("%s imports internal/config", name)
			}
		}
	}
}
