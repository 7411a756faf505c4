package trial

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// driveKeys are what stays of a -drive on another file. What is said of the format,
// the cache and asynchronous I/O is of the old one.
var driveKeys = strings.Fields("if bus unit index media id node-name discard detect-zeroes werror rerror copy-on-read throttling. bps iops bps_rd bps_wr iops_rd iops_wr group")

// plainDrive are, beside driveKeys, the keys of a drive that stays as it is, and plainNode
// those of a node: none of them names a file but the one that is looked at.
var (
	plainDrive = strings.Fields("file file.filename file.driver file.locking file.aio format driver readonly read-only auto-read-only aio cache cache. snapshot serial")
	plainNode  = strings.Fields(`driver node-name read-only auto-read-only force-share discard detect-zeroes cache. aio locking filename file offset size
		throttle-group lazy-refcounts pass-discard-request file.driver file.filename file.node-name file.read-only file.cache. file.aio file.locking read-zeroes`)
)

// plain refuses what has other keys.
func plain(option string, s settings, keys []string) error {
	known := s.only(keys...)
	for _, one := range s {
		if !slices.Contains(known, one) {
			return refuse(option, fmt.Sprintf("%s= may name another file, or lead into the network (give boot.command: a command without it)", one.key))
		}
	}
	return nil
}

// isFile reports whether QEMU takes a name for that of a file: others may be "nbd:…",
// "fat:…" or "json:…".
func isFile(name string) bool { return filepath.IsAbs(strings.TrimPrefix(name, "file:")) }

// fileFix is what to do about a name that is that of no file.
const fileFix = "it is no absolute path of a file (give boot.command: a command without it)"

// diskFix is what to do about a file that no disk of the configuration has.
const diskFix = "it would be written to, and is no disk of the configuration (name it below disks, or give boot.command)"

func (w *rewriter) wholeDisk(option, file string) error {
	image, ok := w.image(file)
	if !ok {
		return refuse("-"+option+" "+file, diskFix)
	}
	w.add("-drive", settings{}.with("format", "qcow2", "index", strconv.Itoa(whole[option]), "media", "disk", "cache", "unsafe", "file", image).String())
	return nil
}

func (w *rewriter) drive(value string) error {
	s := parseSettings(value, "")
	file := s.get("file")
	if file == "" {
		file = s.get("file.filename")
	}
	if image, ok := w.image(file); ok && file != "" {
		out := s.only(driveKeys...).with("format", "qcow2", "cache", "unsafe", "file", image)
		w.add("-drive", out.String())
		return nil
	}
	readOnly := s.on("readonly", "read-only") || s.get("media") == "cdrom"
	switch {
	case file == "": // an empty drive
	case !isFile(file):
		return refuse("-drive "+file, fileFix)
	case !readOnly && s.get("if") == "pflash":
		w.add("-drive", s.only("if", "format", "unit", "index", "id").with("file", w.copy(file)).String())
		return nil
	case !readOnly:
		return refuse("-drive "+file, diskFix)
	}
	if err := plain("-drive "+value, s, slices.Concat(plainDrive, driveKeys)); err != nil {
		return err
	}
	w.add("-drive", value)
	return nil
}

func (w *rewriter) cdrom(file string) error {
	if !isFile(file) {
		return refuse("-cdrom "+file, fileFix)
	}
	w.add("-cdrom", file)
	return nil
}

// copy has a file copied: the variables of a firmware, or what the backup has.
func (w *rewriter) copy(file string) string {
	to, ok := w.out.Copies[file]
	if !ok {
		to = filepath.Join(w.Folder, fmt.Sprintf("file-%d", len(w.out.Copies)))
		w.out.Copies[file] = to
	}
	return to
}

// findNodes learns which nodes of -blockdev are files of disks, and which lie below
// another one.
func (w *rewriter) findNodes() error {
	w.protos, w.refers = map[string]string{}, map[string]bool{}
	for i, arg := range w.Command[:len(w.Command)-1] {
		if arg != "-blockdev" && arg != "--blockdev" {
			continue
		}
		s, err := parseObject(w.Command[i+1], "driver")
		if err != nil {
			return refuse("-blockdev "+w.Command[i+1], err.Error())
		}
		w.refers[s.get("file")] = true
		if image, ok := w.image(s.get("filename")); ok && s.get("filename") != "" {
			w.protos[s.get("node-name")] = image
		}
	}
	return nil
}

// layers are the drivers of nodes that may lie above another node, which is looked at
// by itself.
var layers = []string{"throttle", "raw", "qcow2"}

// blockdev rewrites one node. A disk is a node of a format over one of a file, which
// are written as one option or as two.
func (w *rewriter) blockdev(value string) error {
	s, err := parseObject(value, "driver")
	if err != nil {
		return refuse("-blockdev "+value, err.Error())
	}
	node := s.get("node-name")
	format := s.only("node-name", "discard", "detect-zeroes", "read-only")
	formatted := func(pairs ...string) {
		w.add("-blockdev", append(settings{{"driver", "qcow2"}}.with(pairs...), format...).String())
	}
	file := func(key, name string) []string {
		return []string{key + "driver", "file", key + "filename", name, key + "cache.no-flush", "on"}
	}
	if image, ok := w.image(s.get("file.filename")); ok && s.get("file.filename") != "" {
		formatted(file("file.", image)...)
		return nil
	}
	image, isFile := w.protos[node]
	_, below := w.protos[s.get("file")]
	switch driver := s.get("driver"); {
	case isFile && w.refers[node]:
		w.add("-blockdev", settings{}.with(file("", image)...).with("node-name", node).String())
	case isFile:
		formatted(file("file.", image)...)
	case below && (driver == "raw" || driver == "qcow2"):
		formatted("file", s.get("file"))
	case driver == "null-co" || slices.Contains(layers, driver) && s.get("file") != "",
		s.on("read-only") && filepath.IsAbs(s.get("filename")+s.get("file.filename")):
		if err := plain("-blockdev "+value, s, plainNode); err != nil {
			return err
		}
		w.add("-blockdev", value)
	case driver == "file" && s.get("filename") != "" && w.firmware(node):
		w.add("-blockdev", settings{}.with("driver", "file", "node-name", node, "filename", w.copy(s.get("filename"))).String())
	default:
		return refuse("-blockdev "+s.get("driver")+" "+s.get("filename")+s.get("file.filename"), diskFix)
	}
	return nil
}

// firmware reports whether a node, or the one above it, is a pflash of -machine.
func (w *rewriter) firmware(node string) bool {
	names := map[string]bool{node: true}
	for i, arg := range w.Command[:len(w.Command)-1] {
		if strings.TrimLeft(arg, "-") == "blockdev" {
			if s, err := parseObject(w.Command[i+1], "driver"); err == nil && s.get("file") == node {
				names[s.get("node-name")] = true
			}
		}
	}
	for i, arg := range w.Command[:len(w.Command)-1] {
		if o := strings.TrimLeft(arg, "-"); o == "machine" || o == "M" {
			s := parseSettings(w.Command[i+1], "type")
			if names[s.get("pflash0")] || names[s.get("pflash1")] {
				return true
			}
		}
	}
	return false
}
