package cli

import "github.com/drydock-vm/drydock/disk"

// typeLetters are those that ls shows for types of files.
var typeLetters = map[uint32]byte{
	disk.ModeRegular: '-', disk.ModeDir: 'd', disk.ModeSymlink: 'l', disk.ModeBlock: 'b',
	disk.ModeChar: 'c', disk.ModeFIFO: 'p', disk.ModeSocket: 's',
}

// modeText is a mode as ls shows it, such as "drwxrwxrwt".
func modeText(mode uint32) string {
	text := []byte("?rwxrwxrwx")
	if letter, ok := typeLetters[mode&disk.ModeType]; ok {
		text[0] = letter
	}
	for i := range 9 {
		if mode&(0o400>>i) == 0 {
			text[1+i] = '-'
		}
	}
	for _, s := range []struct {
		bit       uint32
		at        int
		with, not byte // the execute bit
	}{{0o4000, 3, 's', 'S'}, {0o2000, 6, 's', 'S'}, {0o1000, 9, 't', 'T'}} {
		switch {
		case mode&s.bit == 0:
		case text[s.at] == 'x':
			text[s.at] = s.with
		default:
			text[s.at] = s.not
		}
	}
	return string(text)
}
