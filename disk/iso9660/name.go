package iso9660

import (
	"bytes"
	"strings"
)

// maxName is that of package disk, in bytes.
const maxName = 255

// appendName appends the name of a record as the tree in use has it, where Rock
// Ridge has none.
func (fs *Filesystem) appendName(to []byte, r *record) []byte {
	if fs.volume.joliet {
		return append(to, jolietName(r.name)...)
	}
	return appendPlain(to, r.name)
}

// appendPlain is what Linux makes of a plain name ("map=normal"): lower case, without
// the version number 1 and the dot of an empty extension.
func appendPlain(to, name []byte) []byte {
	name = bytes.TrimSuffix(name, []byte(";1"))
	name = bytes.TrimSuffix(name, []byte("."))
	for _, c := range name {
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == ';' || c == '/':
			c = '.'
		}
		to = append(to, c)
	}
	return to
}

// jolietName is what Linux makes of a name in UCS-2: without the version number 1 and
// dots at the end.
func jolietName(raw []byte) string {
	name := strings.TrimSuffix(decodeUCS2(raw), ";1")
	for len(name) > 1 && name[len(name)-1] == '.' {
		name = name[:len(name)-1]
	}
	return name
}

// checkName says what keeps a name from being one of package disk, or nothing.
func checkName(name []byte) string {
	switch {
	case len(name) == 0:
		return "it has no name"
	case len(name) > maxName:
		return "its name is longer than 255 bytes"
	case string(name) == "." || string(name) == "..":
		return "its name is " + string(name)
	case bytes.ContainsAny(name, "/\x00"):
		return "its name has a slash or a NUL in it"
	}
	return ""
}
