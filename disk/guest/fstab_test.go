package guest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

const tricky = `# a comment
	 # another one
UUID=0123-4567	/a ext4 defaults 0 2
  LABEL="two\040words" /b\040c\011d xfs noatime,subvol=x,nofail
LABEL='x'	/quoted ext4
/dev/vda1 / auto rw,errors=remount-ro 0 1
//server/share /mnt/share cifs credentials=/etc/cred,vers=3.0 0 0
/dev/vg/back\134slash /e\134f ext4 context="system_u:object_r:tmp_t:s0:c127,c456",noexec 0 0

none swap swap sw 0 0
/dev/x /last btrfs subvol=/@/deep,subvolid=300`

// TestFindmnt compares what is read of an fstab with libmount.
func TestFindmnt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fstab")
	if err := os.WriteFile(path, []byte(tricky), 0o644); err != nil {
		t.Fatal(err)
	}
	var out struct {
		Filesystems []struct{ Source, Target, FSType, Options string }
	}
	raw := disktest.Run(t, "findmnt", "--tab-file", path, "--json", "--list", "-o", "SOURCE,TARGET,FSTYPE,OPTIONS")
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	entries, bad := parseFstab([]byte(tricky))
	if bad != 0 || len(entries) != len(out.Filesystems) || len(entries) == 0 {
		t.Fatalf("%d entries and %d bad lines, findmnt has %d", len(entries), bad, len(out.Filesystems))
	}
	for i, e := range entries {
		want := out.Filesystems[i]
		target := e.target
		if e.kind == "swap" {
			target = want.Target // findmnt prints none
		}
		if unquote(want.Source) != e.source || want.Target != target || want.FSType != e.kind || !slices.Equal(splitOptions(want.Options), e.options) {
			t.Errorf("%q, findmnt has %q", e, want)
		}
	}
}

func TestOptions(t *testing.T) {
	entries, _ := parseFstab([]byte(tricky))
	context, _ := entries[5].option("context")
	path, _ := entries[7].option("subvol")
	if context != "system_u:object_r:tmp_t:s0:c127,c456" || path != "/@/deep" || !entries[1].has("nofail") || entries[1].has("no") || !entries[5].has("noexec") {
		t.Errorf("%q", entries)
	}
	if v, _ := (&entry{options: []string{"a=1", "a=2"}}).option("a"); v != "2" {
		t.Errorf("of two options the one with %q counts", v)
	}
	for line, want := range map[string]bool{
		"a b c": true, "a b c noauto": false, "a b c noauto,x-systemd.automount": true, "a b c rw,noauto,nofail": false,
	} {
		if e, _ := parseFstab([]byte(line)); e[0].automatic() != want {
			t.Errorf("%q is automatic: %v", line, !want)
		}
	}
}

// TestDecode: what is no escape stays as it is.
func TestDecode(t *testing.T) {
	for in, want := range map[string]string{
		`\040`: " ", `\134040`: `\040`, `\400`: `\400`, `\08`: `\08`, `a\`: `a\`, `\12`: `\12`, `\377`: "\xff", `\000`: "\x00", `\x20`: `\x20`,
	} {
		if got := decode(in); got != want {
			t.Errorf("%q is read as %q, want %q", in, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"vg-lv": "vg/lv", "my--vg-lv--x": "my-vg/lv-x", "a----b-c": "a--b/c", "vg-a-b": "vg/a-b", "alone": "alone", "--": "-",
	} {
		if got := mapperName(in); got != want {
			t.Errorf("/dev/mapper/%s is %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{`a\x20b`: "a b", `\x2f`: "/", `\x2`: `\x2`, `\xzz`: `\xzz`, "": ""} {
		if got := unescapeUdev(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]struct {
		base          string
		number, index int
	}{
		"vda": {"vda", 0, 0}, "sdb12": {"sdb", 12, 1}, "xvdc1": {"xvdc", 1, 2}, "hdz": {"hdz", 0, 25}, "nvme0n1": {"nvme0n1", 0, 0}, "nvme2n1p3": {"nvme2n1", 3, 2},
	} {
		if base, number, index, err := splitDevice(in); err != nil || base != want.base || number != want.number || index != want.index {
			t.Errorf("%s is %s, %d, %d: %v", in, base, number, index, err)
		}
	}
	for _, in := range []string{"", "vd", "vdA", "vdaa", "sr0", "loop0", "nvme", "nvmen1", "nvme0n1p", "nvme0n1p0", "sda0", "sda99999999999999999999", "1"} {
		if base, number, index, err := splitDevice(in); err == nil {
			t.Errorf("%q is %s, %d, %d", in, base, number, index)
		}
	}
}

func TestOrder(t *testing.T) {
	entries, _ := parseFstab([]byte(`
/x /a/b/c ext4
/a/b/c/d /early none bind
/y /a ext4
/z /early/late ext4
/r / ext4
/loop2 /loop1 none bind
/loop1 /loop2 none bind
/w //a//b ext4`))
	var got []string
	for _, e := range order(entries) {
		got = append(got, e.target)
	}
	at := func(target string) int { return slices.Index(got, target) }
	if len(got) != 7 || at("/a") > at("//a//b") || at("//a//b") > at("/a/b/c") || at("/a/b/c") > at("/early") || at("/early") > at("/early/late") {
		t.Errorf("the order is %q", got)
	}
}

// TestOrderOfMany: the longest fstab of bind mounts that all wait for each other
// is put in order quickly.
func TestOrderOfMany(t *testing.T) {
	var text strings.Builder
	long := strings.Repeat("/d", maxFstab/maxEntries/4-10)
	for i := range maxEntries {
		fmt.Fprintf(&text, "%s/%d %s/%d none bind\n", long, (i+1)%maxEntries, long, i)
	}
	entries, bad := parseFstab([]byte(text.String()))
	start := time.Now()
	if n := len(order(entries)); n != maxEntries || bad != 0 {
		t.Errorf("%d in order, %d bad lines", n, bad)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

// FuzzFstab: no text makes entries that are more, or longer, than it has room
// for, and putting them in order loses none but those of the root.
func FuzzFstab(f *testing.F) {
	f.Add([]byte(tricky))
	f.Add([]byte("/a /b none bind\n/b /a none bind"))
	f.Add([]byte(strings.Repeat("a b c\n", 2*maxEntries)))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, bad := parseFstab(text)
		if len(entries) > maxEntries || bad < 0 || len(entries)+bad > len(text) {
			t.Fatalf("%d entries and %d bad lines", len(entries), bad)
		}
		roots := 0
		for i := range entries {
			e := &entries[i]
			if len(e.source)+len(e.target)+len(e.kind) > len(text) {
				t.Errorf("%q is longer than the text", e)
			}
			if e.target == "/" {
				roots++
			}
		}
		if n := len(order(entries)); n != len(entries)-roots {
			t.Errorf("%d of %d entries are in order", n, len(entries)-roots)
		}
	})
}
