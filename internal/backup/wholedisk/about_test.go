package wholedisk

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzSpans: what is decoded ascends, lies on the disk, and is encoded to what it
// was; nothing makes it panic.
func FuzzSpans(f *testing.F) {
	f.Add(appendSpans(nil, []span{{0, 512}, {4096, 8192}, {1 << 40, 1<<40 + 1}}), int64(2<<40))
	f.Add([]byte{1, 0}, int64(100))
	f.Add([]byte{0x80}, int64(100))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1}, int64(100))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if size < 0 {
			return
		}
		list, err := decodeSpans(b, size)
		if err != nil {
			if !errors.Is(err, errRanges) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		end := int64(0)
		for _, s := range list {
			if s.start < end || s.end <= s.start || s.end > size {
				t.Errorf("%+v after %d, on a disk of %d", s, end, size)
			}
			end = s.end
		}
		again, err := decodeSpans(appendSpans(nil, list), size)
		if err != nil || len(again) != len(list) {
			t.Errorf("%d spans, encoded again %d, %v", len(list), len(again), err)
		}
	})
}

func TestSpansOrder(t *testing.T) {
	want := []span{{0, 1}, {1, 5}, {100, 1 << 44}}
	b := appendSpans(nil, want)
	if list, err := decodeSpans(b, 1<<44); err != nil || len(list) != 3 || list[2] != want[2] {
		t.Errorf("%+v, %v", list, err)
	}
	for name, damaged := range map[string][]byte{"cut": b[:len(b)-1], "empty span": {3, 0}, "far": bytes.Repeat([]byte{0xff}, 12)} {
		if _, err := decodeSpans(damaged, 1<<44); !errors.Is(err, errRanges) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodeSpans(b, 1<<43); !errors.Is(err, errRanges) {
		t.Errorf("on a smaller disk: %v", err)
	}
}

// TestSegmentSize: large disks have large segments, and a disk that has grown keeps
// those that it has.
func TestSegmentSize(t *testing.T) {
	for _, c := range []struct{ size, old, want int64 }{
		{0, 0, 64 << 10}, {8 << 30, 0, 64 << 10}, {8<<30 + 64<<10, 0, 128 << 10}, {128 << 30, 0, 1 << 20},
		{1 << 40, 0, 8 << 20}, {16 << 40, 0, 8 << 20},
		{30 << 30, 64 << 10, 64 << 10}, {40 << 30, 64 << 10, 512 << 10}, {1 << 20, 3000, 64 << 10},
	} {
		if got, err := segmentSize(c.size, c.old); err != nil || got != c.want {
			t.Errorf("%d bytes, before %d: segments of %d, want %d, %v", c.size, c.old, got, c.want, err)
		}
	}
	if _, err := segmentSize(16<<40+1, 0); err == nil {
		t.Error("a disk of more than 16 TiB has segments")
	}
}
