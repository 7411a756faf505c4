//go:build linux

package testguest_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testguest"
)

// machine is a guest started straight with QEMU.
type machine struct {
	console string
	monitor string
	ended   chan struct{} // closed when QEMU has ended
	err     error         // how it ended; read after ended is closed
}

func start(t *testing.T, g *testguest.Guest) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{
		console: filepath.Join(dir, "console"),
		monitor: filepath.Join(dir, "qmp"),
		ended:   make(chan struct{}),
	}
	arguments := append(g.Command[1:len(g.Command):len(g.Command)],
		"-serial", "file:"+m.console, "-qmp", "unix:"+m.monitor+",server=on,wait=off")
	command := exec.Command(g.Command[0], arguments...)
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		m.err = command.Wait()
		close(m.ended)
	}()
	t.Cleanup(func() {
		command.Process.Kill()
		<-m.ended
		if t.Failed() {
			t.Logf("console of %s:\n%s", g.Name, m.text(t))
		}
	})
	return m
}

func (m *machine) text(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(m.console)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // QEMU makes it a moment after its start
		t.Fatal(err)
	}
	return string(content)
}

// press presses the ACPI power button.
func (m *machine) press(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("unix", m.monitor)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for _, command := range []string{"", "qmp_capabilities", "system_powerdown"} {
		if command != "" {
			if _, err := conn.Write([]byte(`{"execute":"` + command + `"}`)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := answers.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

// waitFor waits until the console shows text.
func (m *machine) waitFor(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(m.text(t), text) {
		select {
		case <-ctx.Done():
			t.Fatalf("the console never showed %q", text)
		case <-m.ended:
			t.Fatalf("the guest ended before its console showed %q", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestGuestKeepsItsDataAcrossBootsAndVersions(t *testing.T) {
	ctx := deadline(t)
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1"})

	first := start(t, g)
	begun := time.Now()
	if version, err := g.WaitHealthy(ctx); err != nil || version != "v1" {
		t.Fatalf("healthy: version %q, error %v", version, err)
	}
	t.Logf("ready after %v", time.Since(begun))
	first.waitFor(ctx, t, "testguest: ready v1")

	letter := []byte("dear reader")
	if err := g.Put(ctx, "/var/lib/app/letter", letter); err != nil {
		t.Fatal(err)
	}
	if err := g.Fill(ctx, "/var/many", 7, 250, 2000); err != nil {
		t.Fatal(err)
	}
	if err := g.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	first.press(t)
	begun = time.Now()
	if <-first.ended; first.err != nil {
		t.Fatalf("power off: %v", first.err)
	}
	t.Logf("off after %v", time.Since(begun))
	if output, err := exec.Command("qemu-img", "check", g.DataPath).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img check: %v\n%s", err, output)
	}

	if err := os.Rename(testguest.RootImage(t, "v2", false), g.RootPath); err != nil {
		t.Fatal(err)
	}
	start(t, g)
	if version, err := g.WaitHealthy(ctx); err != nil || version != "v2" {
		t.Fatalf("healthy: version %q, error %v", version, err)
	}
	if got, err := g.Get(ctx, "/var/lib/app/letter"); err != nil || string(got) != string(letter) {
		t.Fatalf("letter: %q, %v", got, err)
	}
	want := sha256.Sum256(letter)
	if sum, err := g.Sum(ctx, "/var/lib/app/letter"); err != nil || sum != hex.EncodeToString(want[:]) {
		t.Fatalf("sum: %q, %v", sum, err)
	}
	if boots, err := g.Boots(ctx); err != nil || len(boots) != 2 ||
		!strings.HasPrefix(boots[0], "v1 ") || !strings.HasPrefix(boots[1], "v2 ") {
		t.Fatalf("boots: %q, %v", boots, err)
	}
	if err := g.Delete(ctx, "/var/lib/app/letter"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Get(ctx, "/var/lib/app/letter"); err == nil {
		t.Fatal("the deleted letter is still there")
	}
}

func TestMisbehavingGuest(t *testing.T) {
	ctx := deadline(t)
	g := testguest.New(t, testguest.Options{
		Name: "bad", RootVersion: "v3", Broken: true, IgnoreButton: true,
		DataFormat: testguest.Raw, DataSize: 16 << 20,
	})
	m := start(t, g)
	m.waitFor(ctx, t, "testguest: broken v3")

	attempt, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if version, err := g.Healthy(attempt); err == nil {
		t.Fatalf("the broken guest answered %q", version)
	}
	m.press(t)
	m.waitFor(ctx, t, "testguest: power button ignored")
}
