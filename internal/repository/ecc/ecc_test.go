package ecc_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository/ecc"
)

const limit = 64 << 20

func random(seed uint64, size int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	p := make([]byte, size)
	_, _ = r.Read(p) // never fails
	return p
}

func encode(t testing.TB, pack []byte, percent int) []byte {
	t.Helper()
	parity, err := ecc.Encode(sha256.Sum256(pack), pack, percent)
	if err != nil {
		t.Fatal(err)
	}
	return parity
}

// repair repairs a copy of the damaged pack, and makes sure that it is left alone.
func repair(t testing.TB, parity, damaged []byte) ([]byte, error) {
	t.Helper()
	p, err := ecc.Parse(parity, limit)
	if err != nil {
		return nil, err
	}
	before := bytes.Clone(damaged)
	out, err := p.Repair(damaged)
	if !bytes.Equal(before, damaged) {
		t.Error("the damaged pack was changed")
	}
	return out, err
}

func zero(b []byte, from, n int) { clear(b[from:min(from+n, len(b))]) }

// What storage does to a pack comes back, of packs of all sizes.
func TestRepair(t *testing.T) {
	for _, size := range []int{1, 300, 1023, 1024, 1025, 5000, 100_000, 1 << 20, 16<<20 + 777} {
		for _, percent := range []int{1, 5, 50} {
			t.Run(fmt.Sprintf("%d bytes %d percent", size, percent), func(t *testing.T) {
				pack := random(uint64(size), size)
				parity := encode(t, pack, percent)
				r := rand.New(rand.NewPCG(uint64(size), uint64(percent)))
				for name, damage := range map[string]func([]byte) []byte{
					"nothing": func(b []byte) []byte { return b },
					"longer":  func(b []byte) []byte { return append(b, 1, 2, 3) },
					"a bit":   func(b []byte) []byte { b[r.IntN(size)] ^= 1 << r.IntN(8); return b },
					"start":   func(b []byte) []byte { zero(b, 0, 4096); return b },
					"end":     func(b []byte) []byte { zero(b, max(0, size-3000), 4096); return b },
					"a sector": func(b []byte) []byte {
						zero(b, r.IntN(size)&^4095, 4096)
						return b
					},
					"the last KiB gone": func(b []byte) []byte { return b[:max(0, size-1024)] },
					"a burst of the percentage": func(b []byte) []byte {
						n := (size * percent / 100) &^ 1023
						zero(b, r.IntN(size-n+1)&^1023, n)
						return b
					},
					// A block of which a part is gone is gone.
					"cut by the percentage": func(b []byte) []byte { return b[:size-max(0, size*percent/100-1024)] },
				} {
					out, err := repair(t, parity, damage(bytes.Clone(pack)))
					if err != nil || !bytes.Equal(out, pack) {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
		}
	}
}

// Parity of every size of pack can be read again, and be repaired with: at 1 %, a
// single stripe can be too long for what a bad sector wants.
func TestAllSizes(t *testing.T) {
	for _, percent := range []int{ecc.MinPercent, 2, 5, ecc.MaxPercent} {
		for blocks := 1; blocks <= 520; blocks++ {
			pack := random(uint64(blocks), blocks*1024)
			damaged := bytes.Clone(pack)
			zero(damaged, (blocks-1)/4*4096, 4096)
			out, err := repair(t, encode(t, pack, percent), damaged)
			if err != nil || !bytes.Equal(out, pack) {
				t.Errorf("%d blocks at %d %%: %v", blocks, percent, err)
			}
		}
	}
}

// Bits that flip, and sectors that go bad, all over a pack of the usual size: as many
// as docs/repository.md says.
func TestScattered(t *testing.T) {
	pack := random(1, 16<<20)
	parity := encode(t, pack, 5)
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 0))
		damaged := bytes.Clone(pack)
		for range 300 {
			damaged[r.IntN(len(damaged))] ^= 1 << r.IntN(8)
		}
		if out, err := repair(t, parity, damaged); err != nil || !bytes.Equal(out, pack) {
			t.Errorf("300 bits of 16 MiB, seed %d: %v", seed, err)
		}
		damaged = bytes.Clone(pack)
		for range 80 {
			zero(damaged, r.IntN(len(damaged))&^4095, 4096)
		}
		if out, err := repair(t, parity, damaged); err != nil || !bytes.Equal(out, pack) {
			t.Errorf("80 sectors of 16 MiB, seed %d: %v", seed, err)
		}
	}
}

// Beyond the limit nothing comes out.
func TestTooMuch(t *testing.T) {
	pack := random(2, 4<<20)
	parity := encode(t, pack, 5)
	for name, damaged := range map[string][]byte{
		"a tenth":      append(make([]byte, 400_000), pack[400_000:]...),
		"half is gone": pack[:2<<20], "all is gone": nil, "another pack": random(3, 4<<20),
	} {
		if out, err := repair(t, parity, damaged); !errors.Is(err, ecc.ErrTooDamaged) || out != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Parity is on the same disk, and rots as well.
func TestDamagedParity(t *testing.T) {
	pack := random(4, 4<<20)
	parity := encode(t, pack, 5)
	damaged := bytes.Clone(pack)
	zero(damaged, 1<<20, 64<<10)
	for at := 0; at < len(parity); at += 4096 {
		rotten := bytes.Clone(parity)
		zero(rotten, at, 4096)
		if out, err := repair(t, rotten, damaged); err != nil || !bytes.Equal(out, pack) {
			t.Fatalf("a bad sector at %d of %d: %v", at, len(parity), err)
		}
	}
	for _, n := range []int{len(parity) - 1, len(parity) - 5000, len(parity) - 40_000} {
		if out, err := repair(t, parity[:n], damaged); err != nil || !bytes.Equal(out, pack) {
			t.Errorf("cut to %d of %d bytes: %v", n, len(parity), err)
		}
	}
	if out, err := repair(t, append(bytes.Clone(parity), 1, 2, 3), damaged); err != nil || !bytes.Equal(out, pack) {
		t.Errorf("longer: %v", err)
	}
	both := bytes.Clone(parity)
	both[3] ^= 1
	both[len(both)-3] ^= 1
	for name, bad := range map[string][]byte{"none": nil, "short": parity[:67], "both headers": both, "header alone": parity[:68]} {
		if _, err := ecc.Parse(bad, limit); !errors.Is(err, ecc.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Headers with a good checksum that lie.
func TestLyingHeaders(t *testing.T) {
	good := encode(t, random(5, 100_000), 5)
	for name, change := range map[string]func([]byte){
		"version":       func(b []byte) { b[8] = 2 },
		"block size":    func(b []byte) { b[13] = 8 },
		"no length":     func(b []byte) { clear(b[16:24]) },
		"huge":          func(b []byte) { binary.LittleEndian.PutUint64(b[16:], 1<<63) },
		"over limit":    func(b []byte) { binary.LittleEndian.PutUint64(b[16:], limit+1) },
		"no stripes":    func(b []byte) { clear(b[24:28]) },
		"many stripes":  func(b []byte) { clear(b[24:32]); b[27], b[28], b[30] = 0xff, 1, 4 },
		"no data":       func(b []byte) { clear(b[28:30]) },
		"no parity":     func(b []byte) { clear(b[30:32]) },
		"more parity":   func(b []byte) { b[30] = 0xff },
		"large, and no": func(b []byte) { binary.LittleEndian.PutUint64(b[16:], limit); b[24], b[25], b[28] = 1, 1, 255 },
	} {
		bad := bytes.Clone(good)
		change(bad)
		binary.LittleEndian.PutUint32(bad[64:], crc32.Checksum(bad[:64], crc32.MakeTable(crc32.Castagnoli)))
		copy(bad[len(bad)-68:], bad[:68])
		if _, err := ecc.Parse(bad, limit); !errors.Is(err, ecc.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, percent := range []int{-1, 0, 51} {
		if _, err := ecc.Encode([sha256.Size]byte{}, []byte("x"), percent); err == nil {
			t.Errorf("%d %%", percent)
		}
	}
	if _, err := ecc.Encode([sha256.Size]byte{}, nil, 5); err == nil {
		t.Error("of nothing")
	}
	for _, size := range []int{1, 4096, 1 << 20, 16 << 20} {
		if n := len(encode(t, make([]byte, size), 50)); int64(n) > ecc.MaxSize(int64(size)) {
			t.Errorf("the parity of %d bytes has %d, and MaxSize says %d", size, n, ecc.MaxSize(int64(size)))
		}
	}
}

// The code is the one that docs/format/ecc.md describes: a reader of another make,
// with nothing but that page, computes the same parity.
func TestDescribedFormat(t *testing.T) {
	pack := random(6, 10_000)
	parity := encode(t, pack, 20)
	u32, u16 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint16
	stripes, k, m := int(u32(parity[24:])), int(u16(parity[28:])), int(u16(parity[30:]))
	if sum := sha256.Sum256(pack); stripes != 1 || k != 10 || m != 4 || !bytes.Equal(parity[32:64], sum[:]) {
		t.Fatalf("%d stripes of %d and %d blocks", stripes, k, m)
	}
	padded := append(bytes.Clone(pack), make([]byte, k*1024-len(pack))...)
	start := 68 + 4*(k+m)
	for j := range m {
		want := make([]byte, 1024)
		for i := range k {
			factor := inverse(byte(k+j) ^ byte(i))
			for x := range want {
				want[x] ^= multiply(factor, padded[i*1024+x])
			}
		}
		got := parity[start+j*1024 : start+(j+1)*1024]
		if !bytes.Equal(got, want) {
			t.Errorf("parity block %d is another one", j)
		}
		if sum := u32(parity[68+4*(k+j):]); sum != crc32.Checksum(want, crc32.MakeTable(crc32.Castagnoli)) {
			t.Errorf("parity block %d has another checksum", j)
		}
	}
	if !bytes.Equal(parity[68:start], parity[start+m*1024:start+m*1024+start-68]) || !bytes.Equal(parity[:68], parity[len(parity)-68:]) {
		t.Error("what should be there twice differs")
	}
}

// multiply is that of GF(2^8) with the polynomial 0x11d.
func multiply(a, b byte) (out byte) {
	for ; b > 0; b >>= 1 {
		if b&1 != 0 {
			out ^= a
		}
		high := a & 0x80
		a <<= 1
		if high != 0 {
			a ^= 0x1d
		}
	}
	return out
}

func inverse(a byte) byte {
	for b := range 256 {
		if multiply(a, byte(b)) == 1 {
			return byte(b)
		}
	}
	return 0
}

// FuzzRepair reads parity and packs that somebody else made: what comes out has the
// hash that the parity names.
func FuzzRepair(f *testing.F) {
	for _, size := range []int{1, 1500, 9000} {
		pack := random(uint64(size), size)
		parity := encode(f, pack, 10)
		f.Add(parity, pack)
		f.Add(parity, pack[:size/2])
		f.Add(parity[:len(parity)-100], append(make([]byte, 1), pack[1:]...))
	}
	f.Fuzz(func(t *testing.T, parity, pack []byte) {
		for _, fix := range []bool{false, true} {
			if fix && len(parity) >= 68 { // past the checksum
				parity = bytes.Clone(parity)
				copy(parity, "drydkECC")
				binary.LittleEndian.PutUint32(parity[64:], crc32.Checksum(parity[:64], crc32.MakeTable(crc32.Castagnoli)))
			}
			p, err := ecc.Parse(parity, limit)
			if err != nil {
				if !errors.Is(err, ecc.ErrFormat) {
					t.Fatal(err)
				}
				continue
			}
			out, err := p.Repair(pack)
			if err == nil && sha256.Sum256(out) != p.Sum {
				t.Fatal("another hash")
			}
			if err != nil && !errors.Is(err, ecc.ErrTooDamaged) {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	pack := random(7, 16<<20)
	for _, percent := range []int{5, 20, 50} {
		b.Run(fmt.Sprint(percent), func(b *testing.B) {
			b.SetBytes(int64(len(pack)))
			for b.Loop() {
				parity := encode(b, pack, percent)
				b.ReportMetric(100*float64(len(parity))/float64(len(pack)), "%-of-pack")
			}
		})
	}
}

func BenchmarkRepair(b *testing.B) {
	pack := random(8, 16<<20)
	parity := encode(b, pack, 5)
	damaged := bytes.Clone(pack)
	zero(damaged, 5<<20, 512<<10)
	b.SetBytes(int64(len(pack)))
	for b.Loop() {
		if _, err := repair(b, parity, damaged); err != nil {
			b.Fatal(err)
		}
	}
}
