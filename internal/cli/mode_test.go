package cli

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

func TestModeText(t *testing.T) {
	for mode, want := range map[uint32]string{
		disk.ModeRegular | 0o644:  "-rw-r--r--",
		disk.ModeRegular | 0o4755: "-rwsr-xr-x",
		disk.ModeRegular | 0o6644: "-rwSr-Sr--",
		disk.ModeDir | 0o1777:     "drwxrwxrwt",
		disk.ModeDir | 0o1770:     "drwxrwx--T",
		disk.ModeSymlink | 0o777:  "lrwxrwxrwx",
		disk.ModeBlock | 0o660:    "brw-rw----",
		disk.ModeChar | 0o2010:    "c-----s---",
		disk.ModeFIFO:             "p---------",
		disk.ModeSocket | 0o1:     "s--------x",
		0o170000 | 0o7:            "?------rwx",
	} {
		if got := modeText(mode); got != want {
			t.Errorf("%o is %q, want %q", mode, got, want)
		}
	}
}
