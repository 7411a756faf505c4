//go:build linux

package qmp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/nbd"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// memory is a disk in memory.
type memory struct{ *bytes.Reader }

func (m memory) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length})
}

// TestReconnect: a QEMU that was told of a server as libvirt does fails at once when the
// server is gone, and waits for the next one when its connection is another.
func TestReconnect(t *testing.T) {
	dir := t.TempDir()
	at, image := filepath.Join(dir, "nbd.sock"), filepath.Join(dir, "disk.qcow2")
	serve := func() *nbd.Server {
		t.Helper()
		l, err := nbd.Listen(at)
		if err != nil {
			t.Fatal(err)
		}
		content := bytes.Repeat([]byte{7}, 4<<20)
		return nbd.Start(l, nbd.Options{Exports: []nbd.Export{{Name: "data", Disk: memory{bytes.NewReader(content)}}}}, func(err error) { t.Error(err) })
	}
	header := fmt.Sprintf(`json:{"driver":"raw","file":{"driver":"nbd","export":"data","reconnect-delay":3600,"server":{"type":"unix","path":%q}}}`, at)
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", header, image, "4M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := serve()
	socket, _ := startQEMU(t, dir, "-S",
		"-blockdev", fmt.Sprintf(`{"driver":"nbd","node-name":"server","export":"data","read-only":true,"server":{"type":"unix","path":%q}}`, at),
		"-blockdev", `{"driver":"raw","node-name":"below","read-only":true,"file":"server"}`,
		"-blockdev", fmt.Sprintf(`{"driver":"file","node-name":"file","filename":%q}`, image),
		"-blockdev", `{"driver":"qcow2","node-name":"disk","file":"file","backing":"below"}`)
	reach := qmp.At(socket)
	silent := func(_, _ int64) {}

	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := qmp.Fill(deadline(t), reach, image, silent); err == nil || !strings.Contains(err.Error(), "Input/output error") {
		t.Fatalf("as libvirt does, without a server: %v", err)
	}
	server = serve()
	for range 2 {
		if err := reach(deadline(t), qmp.Reconnect); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	begun, filled := make(chan struct{}), make(chan error, 1)
	go func() {
		var once sync.Once
		filled <- qmp.Fill(deadline(t), reach, image, func(_, _ int64) { once.Do(func() { close(begun) }) })
	}()
	select {
	case <-begun:
	case err := <-filled:
		t.Fatalf("it was filled in from nowhere: %v", err)
	}
	server = serve()
	defer server.Close()
	if err := <-filled; err != nil {
		t.Errorf("with the next server: %v", err)
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-io", "-U", "-r", "-c", "read -P 7 0 4M", image).CombinedOutput(); err != nil || strings.Contains(string(out), "failed") {
		t.Errorf("it has other content: %v: %s", err, out)
	}

	// Who put the disk together takes it apart.
	err := reach(deadline(t), func(ctx context.Context, m qmp.Monitor) error {
		for _, node := range []string{"below", "server"} {
			if err := m.Execute(ctx, "blockdev-del", map[string]string{"node-name": node}, nil); err != nil {
				return err
			}
		}
		if err := qmp.Disconnect(ctx, m); err != nil {
			return err
		}
		var nodes []qmp.Node
		err := m.Execute(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &nodes)
		if len(nodes) != 2 {
			t.Errorf("it still has %+v", nodes)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestCarried: what somebody else brings back from QEMU is an answer, with whatever ID, or
// none at all.
func TestCarried(t *testing.T) {
	var sent, brings string
	m := qmp.Carried(func(_ context.Context, command string) (string, error) {
		sent = command
		return brings, nil
	})
	brings = `{"return": {"status": "running"}, "id": "libvirt-7"}`
	var out struct{ Status string }
	if err := m.Execute(t.Context(), "query-status", map[string]bool{"flat": true}, &out); err != nil || out.Status != "running" {
		t.Errorf("%+v, %v", out, err)
	}
	if want := `{"execute":"query-status","arguments":{"flat":true}}`; sent != want {
		t.Errorf("sent %s, want %s", sent, want)
	}
	brings = `{"id": "libvirt-8", "error": {"class": "GenericError", "desc": "no\u001b"}}`
	var refused *qmp.Error
	if err := m.Execute(t.Context(), "cont", nil, nil); !errors.As(err, &refused) || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("refused: %q", err)
	}
	for _, brings = range []string{"", "{}", `{"return": {}, "error": {}}`, `{"return": 7}`} {
		if err := m.Execute(t.Context(), "query-status", nil, &out); !errors.Is(err, qmp.ErrProtocol) {
			t.Errorf("%q: %v", brings, err)
		}
	}
}
