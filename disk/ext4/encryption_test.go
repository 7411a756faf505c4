package ext4_test

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// addEncryptionKey gives the mounted filesystem's kernel a key, and returns its
// identifier.
func addEncryptionKey(t *testing.T, dir string) [16]byte {
	t.Helper()
	var arg struct {
		unix.FscryptAddKeyArg
		raw [64]byte
	}
	arg.Key_spec.Type = unix.FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER
	arg.Raw_size = 64
	for i := range arg.raw {
		arg.raw[i] = byte(i)
	}
	ioctl(t, dir, unix.FS_IOC_ADD_ENCRYPTION_KEY, unsafe.Pointer(&arg))
	return [16]byte(arg.Key_spec.U[:16])
}

// setEncryptionPolicy makes the empty folder dir an encrypted one.
func setEncryptionPolicy(t *testing.T, dir string, key [16]byte) {
	t.Helper()
	policy := unix.FscryptPolicyV2{
		Version:                   unix.FSCRYPT_POLICY_V2,
		Contents_encryption_mode:  unix.FSCRYPT_MODE_AES_256_XTS,
		Filenames_encryption_mode: unix.FSCRYPT_MODE_AES_256_CTS,
		Master_key_identifier:     key,
	}
	ioctl(t, dir, unix.FS_IOC_SET_ENCRYPTION_POLICY, unsafe.Pointer(&policy))
}

func ioctl(t *testing.T, dir string, request uintptr, arg unsafe.Pointer) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), request, uintptr(arg)); errno != 0 {
		t.Fatalf("ioctl %#x on %s: %v", request, dir, errno)
	}
}
