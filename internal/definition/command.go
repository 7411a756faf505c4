package definition

import (
	"encoding/json"
	"strconv"
	"strings"
)

// HostFile is a file of the host that is to come into a backup.
type HostFile struct {
	Path string
	Role Role
}

// CommandFiles returns the files that a QEMU command line names and that are no
// disks: kernel and initrd, and the flash that the VM writes its UEFI variables to.
// Flash that is read-only is the firmware itself, and comes with its package.
func CommandFiles(command []string) []HostFile {
	var list []HostFile
	for i := 0; i+1 < len(command); i++ {
		option, ok := strings.CutPrefix(command[i], "-")
		if !ok {
			continue
		}
		value := command[i+1]
		switch strings.TrimPrefix(option, "-") {
		case "kernel":
			list = append(list, HostFile{value, RoleKernel})
		case "initrd":
			list = append(list, HostFile{value, RoleInitrd})
		case "pflash":
			list = append(list, HostFile{value, RoleFirmware})
		case "drive":
			keys := properties(value)
			if keys["if"] == "pflash" && !on(keys["readonly"]) && !on(keys["read-only"]) {
				list = append(list, HostFile{keys["file"], RoleFirmware})
			}
		case "blockdev":
			if keys := properties(value); flash(command, keys["node-name"]) && !on(keys["readonly"]) && !on(keys["read-only"]) {
				list = append(list, HostFile{blockdevFile(command, keys), RoleFirmware})
			}
		}
	}
	return list
}

// flash reports whether the machine uses a block device as flash: -machine
// q35,pflash0=NODE.
func flash(command []string, node string) bool {
	for i := 0; i+1 < len(command); i++ {
		if option := strings.TrimLeft(command[i], "-"); option != "machine" && option != "M" {
			continue
		}
		keys := properties(command[i+1])
		if node != "" && (keys["pflash0"] == node || keys["pflash1"] == node) {
			return true
		}
	}
	return false
}

// blockdevFile is the file of a block device, of its own or of the one below.
func blockdevFile(command []string, keys map[string]string) string {
	if name := keys["filename"]; name != "" {
		return name
	}
	if name := keys["file.filename"]; name != "" {
		return name
	}
	for i := 0; i+1 < len(command); i++ {
		if strings.TrimLeft(command[i], "-") != "blockdev" {
			continue
		}
		if below := properties(command[i+1]); below["node-name"] != "" && below["node-name"] == keys["file"] {
			return below["filename"]
		}
	}
	return ""
}

func on(value string) bool { return value == "on" || value == "yes" || value == "true" }

// properties reads KEY=VALUE,KEY=VALUE as QEMU writes it: a comma in a value is
// doubled. What has no "=" is a key without a value.
func properties(text string) map[string]string {
	if strings.HasPrefix(text, "{") {
		return propertiesJSON(text)
	}
	const comma = "\x00" // is in no argument of a program
	out := map[string]string{}
	for part := range strings.SplitSeq(strings.ReplaceAll(text, ",,", comma), ",") {
		key, value, _ := strings.Cut(part, "=")
		out[key] = strings.ReplaceAll(value, comma, ",")
	}
	return out
}

// propertiesJSON reads an object, as libvirt writes it, with the keys that QEMU's other
// form has for what lies deeper: file.filename. What is no object has none.
func propertiesJSON(text string) map[string]string {
	var object map[string]any
	if json.Unmarshal([]byte(text), &object) != nil {
		return nil
	}
	out := map[string]string{}
	for key, value := range object {
		switch v := value.(type) {
		case string:
			out[key] = v
		case bool:
			out[key] = strconv.FormatBool(v)
		case map[string]any:
			if name, ok := v["filename"].(string); ok {
				out[key+".filename"] = name
			}
		}
	}
	return out
}
