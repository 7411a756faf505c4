package snapshot_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/drydock-vm/drydock/internal/snapshot"
)

// vm is a real QEMU with its CPUs stopped, that writes to its disk as a guest's
// driver would have it write.
type vm struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func startVM(t *testing.T, d snapshot.Disk) *vm {
	t.Helper()
	v := &vm{t: t, cmd: exec.Command("qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-S",
		"-qmp", "stdio", "-drive", "id=d0,if=none,file="+d.Path+",format="+d.Format, "-device", "virtio-blk-pci,drive=d0")}
	var err error
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	v.cmd.Stderr = os.Stderr
	v.lines = bufio.NewScanner(out)
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.cmd.Process.Kill(); v.cmd.Wait() })
	if err := v.do("qmp_capabilities", nil); err != nil {
		t.Fatal(err)
	}
	return v
}

// do runs a QMP command.
func (v *vm) do(command string, arguments any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(v.in).Encode(request); err != nil {
		return err
	}
	for v.lines.Scan() {
		var answer struct {
			Return, Error json.RawMessage
		}
		if err := json.Unmarshal(v.lines.Bytes(), &answer); err != nil {
			return err
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", command, answer.Error)
		case answer.Return != nil:
			return nil
		}
	}
	return fmt.Errorf("%s: no answer: %v", command, v.lines.Err())
}

// write fills the disk.
func (v *vm) write(fill byte) {
	v.t.Helper()
	for _, c := range []string{fmt.Sprintf("write -q -P %d 0 4M", fill), "flush"} {
		if err := v.do("human-monitor-command", map[string]any{"command-line": fmt.Sprintf("qemu-io d0 %q", c)}); err != nil {
			v.t.Fatal(err)
		}
	}
}

func (v *vm) quit() {
	v.t.Helper()
	if err := v.do("quit", nil); err != nil {
		v.t.Fatal(err)
	}
	if err := v.cmd.Wait(); err != nil {
		v.t.Fatal(err)
	}
}

// DeleteSnapshot makes a vm a snapshot.LiveDeleter.
func (v *vm) DeleteSnapshot(_ context.Context, _, name string) error {
	return v.do("blockdev-snapshot-delete-internal-sync", map[string]any{"device": "d0", "name": name})
}
