package guest

import (
	"bytes"
	"strings"
)

const (
	// maxFstab is the largest fstab that is read, in bytes: a thousand times what
	// people write.
	maxFstab = 1 << 20
	// maxEntries bounds the lines of an fstab that say something: twice as many as
	// there can be mounts.
	maxEntries = 256
)

// entry is a line of an fstab. Its strings are hostile bytes.
type entry struct {
	source  string // what is mounted, decoded
	target  string // where, decoded
	kind    string // the type of the filesystem: "ext4", "auto", "none"
	options []string
}

// parseFstab returns the entries of an fstab, and how many of its lines are none.
// What is behind maxEntries counts as such.
func parseFstab(text []byte) (entries []entry, bad int) {
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		fields := strings.FieldsFunc(string(line), func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' })
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		if len(fields) < 3 || len(entries) == maxEntries {
			bad++
			continue
		}
		e := entry{source: unquote(decode(fields[0])), target: decode(fields[1]), kind: fields[2]}
		if len(fields) > 3 && fields[3][0] != '#' {
			e.options = splitOptions(decode(fields[3]))
		}
		entries = append(entries, e)
	}
	return entries, bad
}

// decode replaces "\040" and its like by the byte that it stands for.
func decode(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1:i+4]) {
			out = append(out, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// isOctal reports whether three digits stand for a byte.
func isOctal(s string) bool {
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' && s[2] <= '7'
}

// unquote takes the quotes off the value of a tag: UUID="…".
func unquote(s string) string {
	tag, value, ok := strings.Cut(s, "=")
	if ok && len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
		return tag + "=" + value[1:len(value)-1]
	}
	return s
}

// splitOptions splits at commas that are not within double quotes.
func splitOptions(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}

// has reports whether an option without a value is set.
func (e *entry) has(option string) bool {
	_, ok := e.option(option)
	return ok
}

// option returns the value of an option; of several the last counts.
func (e *entry) option(name string) (value string, ok bool) {
	for _, o := range e.options {
		key, v, _ := strings.Cut(o, "=")
		if key == name {
			value, ok = strings.Trim(v, `"`), true
		}
	}
	return value, ok
}

// bind reports whether the source is a folder of the tree itself.
func (e *entry) bind() bool { return e.has("bind") || e.has("rbind") }

// automatic reports whether the guest mounts the entry without being asked.
func (e *entry) automatic() bool { return !e.has("noauto") || e.has("x-systemd.automount") }

// The kinds of filesystem that lie on no disk of the guest.
var (
	inMemory = []string{
		"tmpfs", "ramfs", "proc", "sysfs", "devtmpfs", "devpts", "mqueue", "hugetlbfs", "debugfs", "tracefs", "securityfs", "configfs",
		"cgroup", "cgroup2", "efivarfs", "bpf", "binfmt_misc", "fusectl", "pstore", "rpc_pipefs", "nfsd", "selinuxfs", "usbfs", "usbdevfs",
	}
	elsewhere = []string{
		"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs", "davfs", "afs", "coda", "sshfs", "lustre",
	}
)
