package partition_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/partition"
	"github.com/drydock-vm/drydock/disk/raw"
)

// The tests of this file compare with sgdisk, sfdisk, mkfs and partx.

// emptyDisk makes a file of mib MiB.
func emptyDisk(t *testing.T, mib int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, mib<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

func openDisk(t *testing.T, path string) disk.Sparse {
	t.Helper()
	f, size := disktest.OpenFile(t, path)
	d, err := raw.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sfdisk makes partitions from a script.
func sfdisk(t *testing.T, path, script string) {
	t.Helper()
	cmd := exec.Command("sfdisk", "-q", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
}

// comparePartx compares a table with what partx, which is libblkid, reads: one
// line for each partition, of number, start and length in units of 512 bytes
// whatever the sector size, type, UUID, name.
func comparePartx(t *testing.T, path string, sectorSize int64) *partition.Table {
	t.Helper()
	out := disktest.Run(t, "partx", "--raw", "--noheadings", "--sector-size", fmt.Sprint(sectorSize),
		"-o", "NR,START,SECTORS,TYPE,UUID,NAME", path)
	table, err := partition.Read(openDisk(t, path), sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, p := range table.Partitions {
		kind, id := strings.ToLower(p.TypeID.String()), strings.ToLower(p.ID.String())
		if table.Kind == partition.MBR {
			kind, id = fmt.Sprintf("%#x", p.Type), fmt.Sprintf("%08x-%02x", table.Signature, p.Number)
		}
		line := fmt.Sprintln(p.Number, p.Offset/512, p.Length/512, kind, id, escape(p.Name))
		got.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	want := ""
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		want += strings.TrimRight(line, " ") + "\n"
	}
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	return table
}

// escape writes a name as partx does in the C locale.
func escape(name []byte) string {
	var b strings.Builder
	for _, c := range name {
		if c < 0x80 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "\\x%02x", c)
		}
	}
	return b.String()
}

func TestGPTAgainstSgdisk(t *testing.T) {
	path := emptyDisk(t, 64)
	disktest.Run(t, "sgdisk", "-n", "1:2048:+1M", "-t", "1:ef00", "-c", "1:boot", "-n", "3:0:+8M", "-c", "3:größe-⚓", "-A", "3:set:60",
		"-n", "7:50000:60000", "-n", "128:0:0", path)
	table := comparePartx(t, path, 512)
	if table.Kind != partition.GPT || table.Damage != nil || len(table.Partitions) != 4 {
		t.Errorf("%+v", table)
	}
	p, err := table.Find(3)
	if err != nil || string(p.Name) != "größe-⚓" || p.Attributes != 1<<60 || p.Extended() {
		t.Errorf("%+v, %v", p, err)
	}
	out := string(disktest.Run(t, "sgdisk", "-p", path))
	if want := "Disk identifier (GUID): " + table.DiskID.String(); !strings.Contains(out, want) {
		t.Errorf("no %q in\n%s", want, out)
	}
	_, err = table.Find(2)
	wantError(t, err, disk.ErrNotExist)
}

// TestGPTVariants: hybrid MBRs, a larger array of entries, a moved one.
func TestGPTVariants(t *testing.T) {
	for name, args := range map[string][]string{
		"hybrid":          {"-n", "1:0:+8M", "-n", "2:0:+8M", "-h", "1,2"},
		"hybrid, EE last": {"-n", "1:0:+8M", "-h", "1:EE"},
		"256 entries":     {"-S", "256", "-n", "1:0:+8M", "-n", "200:0:+8M"},
		"moved entries":   {"-j", "100", "-n", "1:0:+8M"},
		"empty":           {"-o"},
	} {
		t.Run(name, func(t *testing.T) {
			path := emptyDisk(t, 64)
			disktest.Run(t, "sgdisk", append(args, path)...)
			if name == "empty" {
				table, err := partition.Read(openDisk(t, path), 512)
				if err != nil || table.Kind != partition.GPT || len(table.Partitions) != 0 {
					t.Errorf("%+v, %v", table, err)
				}
				return
			}
			if table := comparePartx(t, path, 512); table.Kind != partition.GPT {
				t.Errorf("kind %v", table.Kind)
			}
		})
	}
}

func TestMBRAgainstSfdisk(t *testing.T) {
	for name, script := range map[string]string{
		"primary":         "label: dos\nsize=8M, type=83, bootable\nsize=8M, type=82\nsize=1M, type=c\ntype=83\n",
		"with a gap":      "label: dos\n2: size=8M\n4: size=8M\n",
		"logical":         "label: dos\nsize=8M\ntype=5\nsize=4M\nsize=4M, type=82\nsize=4M\n",
		"logical in LBA":  "label: dos\n1: size=8M\n3: size=30M, type=f\n5: size=4M\n6: size=4M\n4: size=2M\n",
		"empty container": "label: dos\nsize=8M\ntype=5\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := emptyDisk(t, 64)
			sfdisk(t, path, script)
			if table := comparePartx(t, path, 512); table.Kind != partition.MBR {
				t.Errorf("kind %v", table.Kind)
			}
		})
	}
}

// TestLogicalDeleted: the records of deleted logical partitions stay in the
// chain or leave it, and the numbers follow Linux.
func TestLogicalDeleted(t *testing.T) {
	for _, number := range []string{"5", "6", "7"} {
		path := emptyDisk(t, 64)
		sfdisk(t, path, "label: dos\nsize=8M\ntype=5\nsize=4M\nsize=4M, type=82\nsize=4M\n")
		disktest.Run(t, "sfdisk", "-q", "--delete", path, number)
		comparePartx(t, path, 512)
	}
}

// TestLargeSectors compares disks with sectors of 4096 bytes.
func TestLargeSectors(t *testing.T) {
	gpt := newImage(4096, 256)
	gpt.gpt(gptEntry{10, 99, "one"}, gptEntry{}, gptEntry{100, 200, "three"})
	clear(gpt.at(2)[gptEntrySize : 2*gptEntrySize]) // number 2 is not used
	clear(gpt.at(254)[gptEntrySize : 2*gptEntrySize])
	gpt.seal(1)
	gpt.seal(255)
	dos := newImage(4096, 256)
	copy(dos.b[440:], "\x01\x02\x03\x04")
	dos.record(0, [3]uint32{0x83, 10, 40}, [3]uint32{5, 50, 100})
	dos.record(50, [3]uint32{0x83, 1, 9}, [3]uint32{5, 20, 20})
	dos.record(70, [3]uint32{0x82, 1, 19})
	for kind, im := range map[partition.Kind]*image{partition.GPT: gpt, partition.MBR: dos} {
		path := filepath.Join(t.TempDir(), "disk.raw")
		if err := os.WriteFile(path, im.b, 0o600); err != nil {
			t.Fatal(err)
		}
		if table := comparePartx(t, path, 4096); table.Kind != kind || table.SectorSize != 4096 {
			t.Errorf("%+v", table)
		}
	}
}

// TestWholeDiskFilesystems are not partitioned, whatever their boot sector says.
func TestWholeDiskFilesystems(t *testing.T) {
	for _, command := range [][]string{
		{"mke2fs", "-q", "-t", "ext4"},
		{"mkfs.xfs", "-q"},
		{"mkfs.btrfs", "-q"},
	} {
		path := emptyDisk(t, 320)
		disktest.Run(t, command[0], append(command[1:], path)...)
		checkNone(t, command[0], openDisk(t, path))

		// A boot loader in front of it, as extlinux leaves one.
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{0x55, 0xaa}, 510); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		checkNone(t, command[0]+" with a boot loader", openDisk(t, path))
	}
}

func checkNone(t *testing.T, what string, d disk.Sparse) {
	t.Helper()
	table, err := partition.Read(d, 0)
	if err != nil || table.Kind != partition.None || len(table.Partitions) != 0 {
		t.Errorf("%s: %+v, %v", what, table, err)
		return
	}
	_, err = table.Find(1)
	wantError(t, err, disk.ErrNotExist)
}
