package nbd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/qcow2"
	"github.com/drydock-vm/drydock/internal/nbd"
)

// TestInfo checks what nbdinfo is told.
func TestInfo(t *testing.T) {
	a := newMemDisk(extent(disk.ExtentData, 12345))
	b := newMemDisk(extent(disk.ExtentHole, 1<<20))
	s := start(t, nbd.Export{Name: "a", Description: "the first, with ü", Disk: a}, nbd.Export{Name: "b/ü c", Disk: b})
	type export struct {
		Name        string   `json:"export-name"`
		Description string   `json:"description"`
		Size        int64    `json:"export-size"`
		ReadOnly    bool     `json:"is_read_only"`
		Cache       bool     `json:"can_cache"`
		DF          bool     `json:"can_df"`
		MultiConn   bool     `json:"can_multi_conn"`
		Flush       bool     `json:"can_flush"`
		Trim        bool     `json:"can_trim"`
		Zero        bool     `json:"can_zero"`
		Contexts    []string `json:"contexts"`
		Minimum     int64    `json:"block_size_minimum"`
		Preferred   int64    `json:"block_size_preferred"`
		Maximum     int64    `json:"block_size_maximum"`
	}
	type info struct {
		Protocol   string   `json:"protocol"`
		Structured bool     `json:"structured"`
		Exports    []export `json:"exports"`
	}
	wantA := export{Name: "a", Description: "the first, with ü", Size: 12345, ReadOnly: true, Cache: true, DF: true, MultiConn: true,
		Contexts: []string{"base:allocation"}, Minimum: 1, Preferred: 4096, Maximum: 32 << 20}
	wantB := wantA
	wantB.Name, wantB.Description, wantB.Size = "b/ü c", "", 1<<20
	for _, c := range []struct {
		args []string
		want []export
	}{
		{[]string{s.uri("a")}, []export{wantA}},
		{[]string{s.uri("")}, []export{wantA}},
		{[]string{s.uri("b/%C3%BC%20c")}, []export{wantB}},
		{[]string{"--list", s.uri("")}, []export{wantA, wantB}},
	} {
		var got info
		if err := json.Unmarshal(run(t, "nbdinfo", append([]string{"--json"}, c.args...)...), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(info{Protocol: "newstyle-fixed", Structured: true, Exports: c.want}, got); diff != "" {
			t.Errorf("%v (- want, + got):\n%s", c.args, diff)
		}
	}
	if out, err := exec.Command("nbdinfo", s.uri("c")).CombinedOutput(); err == nil || !strings.Contains(string(out), "No such file") {
		t.Errorf("an export that is not there: %v, %s", err, out)
	}
	if r := s.reports(); len(r) != 0 {
		t.Errorf("reports: %v", r)
	}
}

// status is the output of nbdinfo --map.
type status struct {
	Offset, Length int64
	Type           int
}

func mapOf(t *testing.T, uri string) []status {
	t.Helper()
	var list []status
	if err := json.Unmarshal(run(t, "nbdinfo", "--map", "--json", uri), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// zeros makes no difference between zeros and holes.
func zeros(list []status) []status {
	var merged []status
	for _, e := range list {
		e.Type &^= 1
		if last := len(merged) - 1; last >= 0 && merged[last].Type == e.Type {
			merged[last].Length += e.Length
			continue
		}
		merged = append(merged, e)
	}
	return merged
}

func TestMap(t *testing.T) {
	d := newMemDisk(extent(disk.ExtentData, 5000), extent(disk.ExtentData, 192), extent(disk.ExtentHole, 1<<20), extent(disk.ExtentZero, 7),
		extent(disk.ExtentHole, 1), extent(disk.ExtentData, 3<<20))
	s := start(t, nbd.Export{Disk: d})
	want := []status{{0, 5192, 0}, {5192, 1 << 20, 3}, {5192 + 1<<20, 7, 2}, {5199 + 1<<20, 1, 3}, {5200 + 1<<20, 3 << 20, 0}}
	if diff := cmp.Diff(want, mapOf(t, s.uri(""))); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}

// TestMapOfMany has more extents than one reply may carry.
func TestMapOfMany(t *testing.T) {
	var list []disk.Extent
	for range 50_000 {
		list = append(list, extent(disk.ExtentZero, 1), extent(disk.ExtentData, 1))
	}
	s := start(t, nbd.Export{Disk: newMemDisk(list...)})
	got := mapOf(t, s.uri(""))
	if len(got) != len(list) {
		t.Errorf("%d extents, want %d", len(got), len(list))
	}
	for i, e := range got {
		if want := (status{int64(i), 1, 2 * (1 - i%2)}); e != want {
			t.Fatalf("extent %d is %v, want %v", i, e, want)
		}
	}
}

// qemuServe starts qemu-nbd, the reference.
func qemuServe(t testing.TB, format, path string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "q")
	c := exec.Command("qemu-nbd", "-r", "-t", "-e", "16", "-f", format, "-k", socket, path)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	for range 1000 {
		// The socket is there before qemu-nbd listens on it.
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return "nbd+unix:///?socket=" + socket
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("qemu-nbd does not start")
	return ""
}

// TestLikeQEMU compares what clients see with what they see of qemu-nbd.
func TestLikeQEMU(t *testing.T) {
	rawPath, rawDisk := sparseFile(t)
	qcowPath := filepath.Join(t.TempDir(), "qcow2")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", rawPath, qcowPath)
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -z 6M 1M", "-c", "write -P 3 20M 3M", "-c", "discard 21M 1M", qcowPath)
	f, err := os.Open(qcowPath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	qcowDisk, err := qcow2.Open(f, st.Size(), qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		format, path string
		disk         disk.Sparse
	}{{"raw", rawPath, rawDisk}, {"qcow2", qcowPath, qcowDisk}} {
		t.Run(c.format, func(t *testing.T) {
			reference := qemuServe(t, c.format, c.path)
			s := start(t, nbd.Export{Name: "disk", Disk: c.disk})
			uri := s.uri("disk")
			want, got := mapOf(t, reference), mapOf(t, uri)
			if c.format == "qcow2" {
				// QEMU calls zero clusters without a place in the file holes.
				want, got = zeros(want), zeros(got)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the map (- qemu-nbd, + ours):\n%s", diff)
			}
			qemuMap := func(uri string) string { return string(run(t, "qemu-img", "map", "--output=json", "-f", "raw", uri)) }
			if diff := cmp.Diff(qemuMap(reference), qemuMap(uri)); diff != "" && c.format == "raw" {
				t.Errorf("qemu-img's map (- qemu-nbd, + ours):\n%s", diff)
			}
			run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", reference, uri)
			run(t, "qemu-img", "compare", "-f", c.format, "-F", "raw", c.path, uri)
			checkCopies(t, uri, c.disk)
			if r := s.reports(); len(r) != 0 {
				t.Errorf("reports: %v", r)
			}
		})
	}
}

// checkCopies copies a disk with each client in each of its ways.
func checkCopies(t *testing.T, uri string, d disk.Sparse) {
	want := content(t, d)
	for _, args := range [][]string{
		{"nbdcopy", uri},
		{"nbdcopy", "--no-extents", uri},
		{"nbdcopy", "--synchronous", "--allocated", uri},
		{"nbdcopy", "--request-size=33554432", "--connections=1", uri},
		{"nbdcopy", "--request-size=4096", "--requests=3", uri},
		{"qemu-img", "convert", "-f", "raw", "-O", "raw", uri},
		{"qemu-img", "convert", "-f", "raw", "-O", "raw", "-S", "0", "-W", "-m", "16", uri},
	} {
		path := filepath.Join(t.TempDir(), "copy")
		run(t, args[0], append(args[1:], path)...)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%v: other content, or %d bytes instead of %d", args, len(got), len(want))
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if len(args) == 2 && st.Blocks*512 > st.Size/2 {
			t.Errorf("%v: the copy has no holes", args)
		}
	}
}

func TestQEMU(t *testing.T) {
	d := newMemDisk(extent(disk.ExtentData, 1<<20), extent(disk.ExtentHole, 1<<20))
	clear(d.content[:4096])
	s := start(t, nbd.Export{Name: "x", Disk: d})
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(run(t, "qemu-img", "info", "--output=json", "-f", "raw", s.uri("x")), &info); err != nil || info.Size != d.Size() {
		t.Errorf("qemu-img info: %d bytes, %v", info.Size, err)
	}
	out := string(run(t, "qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 4096", "-c", "read -P 0 1M 1M", "-c", "read 1000 70000", s.uri("x")))
	if strings.Contains(out, "fail") || strings.Count(out, "bytes at offset") != 3 {
		t.Errorf("qemu-io: %s", out)
	}
	if out, err := exec.Command("qemu-io", "-f", "raw", "-c", "write 0 4096", s.uri("x")).CombinedOutput(); err == nil {
		t.Errorf("qemu-io may write: %s", out)
	}
}

// TestLibnbd uses what the other clients do not.
func TestLibnbd(t *testing.T) {
	d := newMemDisk(extent(disk.ExtentData, 1<<20), extent(disk.ExtentHole, 1<<20), extent(disk.ExtentZero, 1<<20), extent(disk.ExtentData, 1<<20))
	d.badFrom, d.badTo = 3<<20+5000, 3<<20+5001
	s := start(t, nbd.Export{Disk: d})
	path := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(path, d.content, 0o600); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("URI, CONTENT = %q, %q\n", s.uri(""), path) + libnbdScript
	c := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", script) // the one that Debian's modules are for
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if r := s.reports(); len(r) == 0 || !strings.Contains(r[0].Error(), "scratched") {
		t.Errorf("reports: %v", r)
	}
}

const libnbdScript = `
import errno, nbd
M = 1 << 20
content = open(CONTENT, "rb").read()

def connect(structured):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    h.set_handshake_flags(nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE if not structured else nbd.HANDSHAKE_FLAG_MASK)
    h.set_strict_mode(0) # the server is to refuse
    h.add_meta_context("base:allocation")
    h.add_meta_context("qemu:dirty-bitmap:x")
    h.connect_uri(URI)
    return h

def fails(number, f, *args, **named):
    try:
        f(*args, **named)
    except nbd.Error as e:
        assert e.errnum == number, (e, f, args)
        return
    raise AssertionError("no error", f, args)

for structured in (True, False):
    h = connect(structured)
    assert h.can_df() == structured and h.is_read_only() and not h.can_flush()
    assert h.can_meta_context("base:allocation") == structured
    for off, n in ((0, 1), (12345, 300000), (M - 1, 2 * M + 2), (0, 3 * M), (4 * M - 1, 1)):
        assert h.pread(n, off) == content[off:off + n]
    h.cache(3 * M, 0)
    fails(errno.EPERM, h.pwrite, b"x" * 100000, 0)
    fails(errno.EPERM, h.trim, 4096, 0)
    fails(errno.EPERM, h.zero, 4096, 0)
    fails(errno.EINVAL, h.flush)
    fails(errno.EINVAL, h.pread, 1, 4 * M)
    fails(errno.EIO, h.pread, M, 3 * M)
    fails(errno.EIO, h.cache, M, 3 * M)
    assert h.pread(1, 0) == content[:1]
    h.shutdown()

h = connect(True)

def chunks(n, off, flags=0):
    got = []
    def chunk(buf, at, status, error):
        if status == nbd.READ_DATA:
            assert bytes(buf) == content[at:at + len(buf)]
        got.append((status, at - off, len(buf), error.value))
    try:
        h.pread_structured(n, off, chunk, flags)
    except nbd.Error as e:
        assert e.errnum == errno.EIO, e
    return got

K = 1 << 10
D, H, E = nbd.READ_DATA, nbd.READ_HOLE, nbd.READ_ERROR
assert chunks(2 * M + 5000, M - 5000) == [(D, 0, 5000, 0), (H, 5000, 2 * M, 0)], chunks(2 * M + 5000, M - 5000)
assert chunks(3 * M, 0, nbd.CMD_FLAG_DF) == [(D, 0, 3 * M, 0)]
assert chunks(300 * K, 0) == [(D, 0, 256 * K, 0), (D, 256 * K, 44 * K, 0)]
assert chunks(100 * K, 3 * M - 50 * K) == [(H, 0, 50 * K, 0), (E, 50 * K, 0, errno.EIO)]

def extents(n, off, flags=0):
    got = []
    h.block_status(n, off, lambda name, at, list, error: got.extend(list), flags)
    return got

assert extents(4 * M, 0) == [M, 0, M, 3, M, 2, M, 0]
assert extents(3 * M, M // 2) == [M // 2, 0, M, 3, M, 2, M // 2, 0]
assert extents(4 * M, 0, nbd.CMD_FLAG_REQ_ONE) == [M, 0]
assert extents(100, 5, nbd.CMD_FLAG_REQ_ONE) == [100, 0]
`
