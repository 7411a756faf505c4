package disk_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

func TestMayHaveHoles(t *testing.T) {
	file := func(size int, data ...int) []byte {
		p := make([]byte, size)
		for _, at := range data {
			p[at] = 1
		}
		return p
	}
	for name, c := range map[string]struct {
		content []byte
		block   int64
		want    bool
	}{
		"empty":                        {nil, 4096, false},
		"data in each block":           {file(12288, 0, 4097, 12287), 4096, false},
		"a block of zeros":             {file(12288, 0, 12287), 4096, true},
		"zeros across two blocks":      {file(8192, 0, 8191), 4096, false},
		"the same, of smaller blocks":  {file(8192, 0, 8191), 1024, true},
		"the end is part of a block":   {file(4100, 5), 4096, true},
		"data at the end":              {file(4100, 5, 4099), 4096, false},
		"unknown blocks":               {file(1024, 0, 1023), 0, false},
		"unknown blocks, one of zeros": {file(1536, 0, 1535), 0, true},
		"blocks larger than there are": {file(128<<10, 0, 100<<10), 1 << 40, false},
	} {
		if got := disk.MayHaveHoles(c.content, c.block); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
