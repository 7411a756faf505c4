//go:build linux

package testguest

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// What UEFI calls a variable of its own.
const efiGlobal = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// The variables that say what is booted.
const (
	BootOrder = "BootOrder" + efiGlobal
	BootEntry = "BootD0CC" + efiGlobal
)

// The root disk of a guest of UEFI, in sectors of 512 bytes.
const (
	espFirst = 2048
	espSize  = 24 << 11
	// UEFIRoot is where the root filesystem is, in bytes: in partition 2.
	UEFIRoot = (espFirst + espSize) * 512
)

// espGUID is that of the partition with the loader, and the same as UEFI has it: the
// first three numbers of it are little endian.
const (
	espGUID   = "d2ad0c4b-0001-4002-8003-000000000004"
	espOnDisk = "4b0cadd201000240" + "8003000000000004"
)

// UEFI makes a guest that was never started boot by UEFI: its root disk gets a partition
// with a loader, which is the kernel itself, and one with the root filesystem. Its
// firmware's variables are a file of its own beside the root disk, which it returns;
// they name no loader yet. The command that is returned boots the guest without one, as
// an installation medium does: then [Entry] can be set as [BootEntry], and named in
// [BootOrder].
func (g *Guest) UEFI(t testing.TB) (variables string, medium []string) {
	t.Helper()
	bare := g.RootPath + ".bare"
	if err := os.Rename(g.RootPath, bare); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(bare)
	esp := filepath.Join(t.TempDir(), "esp")
	run(t, "truncate", "-s", "24M", esp)
	run(t, "mkfs.vfat", "-n", "ESP", esp)
	run(t, "mmd", "-i", esp, "::EFI", "::EFI/drydock")
	run(t, "mcopy", "-i", esp, filepath.Join(KernelFolder(t), "vmlinuz"), "::EFI/drydock/linux.efi")
	run(t, "truncate", "-s", "58M", g.RootPath)
	run(t, "sgdisk", "-n", "1:2048:+24M", "-t", "1:ef00", "-u", "1:"+espGUID, "-n", "2:0:+32M", "-c", "2:root", g.RootPath)
	run(t, "dd", "if="+esp, "of="+g.RootPath, "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
	run(t, "dd", "if="+bare, "of="+g.RootPath, "bs=1M", "seek=25", "conv=notrunc,sparse", "status=none")

	variables = strings.TrimSuffix(g.RootPath, ".root.raw") + ".vars.fd"
	copyFile(t, "/usr/share/OVMF/OVMF_VARS_4M.fd", variables, 0o600)
	medium = slices.Clone(g.Command)
	for i, arg := range medium {
		medium[i] = strings.Replace(arg, "root=/dev/nvme0n1 ", "root=/dev/nvme0n1p2 ", 1)
		if arg == "192" {
			medium[i] = "384"
		}
	}
	medium = append(medium, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
		"-drive", "if=pflash,unit=1,format=raw,file="+quoteComma(variables))
	g.Command = slices.Clone(medium)
	for _, option := range []string{"-kernel", "-append"} {
		i := slices.Index(g.Command, option)
		g.Command = slices.Delete(g.Command, i, i+2)
	}
	return variables, medium
}

// Entry is the variable that has the firmware start the kernel on the guest's loader
// partition, with its command line: an EFI_LOAD_OPTION (UEFI 2.10, 3.1.3). Without it
// the guest does not boot.
func Entry(t testing.TB) []byte {
	t.Helper()
	guid, err := hex.DecodeString(espOnDisk)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	// A hard drive device path, in its short form (10.3.5.1).
	path := []byte{4, 1, 42, 0}
	path = le.AppendUint32(path, 1)
	path = le.AppendUint64(path, espFirst)
	path = le.AppendUint64(path, espSize)
	path = append(append(path, guid...), 2, 2) // a GPT, and a GUID
	// A file path (10.3.5.4), and the end (10.3.1).
	file := wide(`\EFI\drydock\linux.efi`)
	path = le.AppendUint16(append(path, 4, 4), uint16(4+len(file)))
	path = append(append(path, file...), 0x7f, 0xff, 4, 0)

	out := le.AppendUint32(nil, 1) // LOAD_OPTION_ACTIVE
	out = le.AppendUint16(out, uint16(len(path)))
	out = append(append(out, wide("drydock's guest")...), path...)
	return append(out, wide(kernelLine("/dev/nvme0n1p2"))...)
}

// wide is text as UEFI has it, with a zero behind it.
func wide(text string) []byte {
	var out []byte
	for _, unit := range utf16.Encode([]rune(text + "\x00")) {
		out = binary.LittleEndian.AppendUint16(out, unit)
	}
	return out
}
