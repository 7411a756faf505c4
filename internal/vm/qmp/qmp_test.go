//go:build linux

package qmp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// startQEMU starts a machine without a disk, whose firmware does not react to
// the power button, and returns the path of its QMP socket.
func startQEMU(t *testing.T, dir string, args ...string) (socket string, ended <-chan error) {
	t.Helper()
	cmd := exec.Command("qemu-system-x86_64", append([]string{
		"-nodefaults", "-display", "none", "-accel", "tcg", "-m", "16",
		"-qmp", "unix:qmp.sock,server=on,wait=off"}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	socket = filepath.Join(dir, "qmp.sock")
	ctx := deadline(t)
	for {
		c, err := qmp.Dial(ctx, socket)
		if err == nil {
			c.Close()
			return socket, done
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// The whole of a conversation with a real QEMU, whose socket has a path that is
// too long for a socket's address.
func TestQEMU(t *testing.T) {
	ctx := deadline(t)
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	socket, ended := startQEMU(t, dir)
	c, err := qmp.Dial(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var version struct{ Package string }
	if err := c.Execute(ctx, "query-version", nil, &version); err != nil {
		t.Errorf("query-version: %v", err)
	}
	var schema []json.RawMessage // the longest answer that there is
	if err := c.Execute(ctx, "query-qmp-schema", nil, &schema); err != nil || len(schema) < 100 {
		t.Errorf("query-qmp-schema: %d entries, %v", len(schema), err)
	}
	var refused *qmp.Error
	err = c.Execute(ctx, "device_del", map[string]string{"id": "none\x1b[2J"}, nil)
	if !errors.As(err, &refused) || refused.Class != "DeviceNotFound" || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("device_del of what is not there: %q", err)
	}
	for _, command := range []string{"stop", "cont", "system_powerdown", "quit"} {
		if err := c.Execute(ctx, command, nil, nil); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
	var names []string
	for e := range c.Events() {
		names = append(names, e.Name)
	}
	if got := strings.Join(names, " "); got != "STOP RESUME POWERDOWN SHUTDOWN" {
		t.Errorf("events: %s", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("QEMU: %v", err)
	}
	if err := c.Execute(ctx, "query-version", nil, nil); !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("a command after the end: %v", err)
	}
}

func TestStates(t *testing.T) {
	ctx := deadline(t)
	socket, ended := startQEMU(t, t.TempDir(), "-S")
	never := func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, nil }
	if state, err := qmp.State(ctx, socket); err != nil || state != vm.Paused {
		t.Errorf("before it runs: %s, %v", state, err)
	}
	if err := qmp.ShutDown(ctx, socket, time.Hour, never); !errors.Is(err, vm.ErrPaused) {
		t.Errorf("shutdown of a machine that is paused: %v", err)
	}
	c, err := qmp.Dial(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Execute(ctx, "cont", nil, nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if state, err := qmp.State(ctx, socket); err != nil || state != vm.Running {
		t.Errorf("after cont: %s, %v", state, err)
	}
	if err := qmp.ShutDown(ctx, socket, 100*time.Millisecond, never); !errors.Is(err, vm.ErrShutdownTimeout) {
		t.Errorf("shutdown of a machine without a system: %v", err)
	}
	called, cancel := context.WithCancel(ctx)
	cancel()
	if err := qmp.ShutDown(called, socket, time.Hour, never); !errors.Is(err, context.Canceled) || errors.Is(err, vm.ErrShutdownTimeout) {
		t.Errorf("shutdown that is called off: %v", err)
	}
	if err := qmp.Quit(ctx, socket); err != nil {
		t.Errorf("quit: %v", err)
	}
	<-ended
	// Nobody answers any more: it is waited for, and the error says both.
	err = qmp.ShutDown(ctx, socket, 50*time.Millisecond, never)
	if !errors.Is(err, vm.ErrShutdownTimeout) || !strings.Contains(err.Error(), "could not be pressed") {
		t.Errorf("shutdown of a machine that does not answer: %v", err)
	}
}

// serve plays a QEMU that says what script says. "<" reads one line.
func serve(t *testing.T, script ...string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		lines := bufio.NewReader(conn)
		for _, line := range script {
			if line == "<" {
				_, err = lines.ReadString('\n')
			} else {
				_, err = fmt.Fprint(conn, line, "\r\n")
			}
			if err != nil {
				return
			}
		}
		_, _ = lines.ReadString('\n') // until the client goes
	}()
	return socket
}

const greeting = `{"QMP": {"version": {}, "capabilities": []}}`

// What is not the protocol ends the connection, whatever it is.
func TestProtocol(t *testing.T) {
	ok := `{"return": {}, "id": 1}`
	long := `{"event": "` + strings.Repeat("x", 1<<20) + `"}`
	for name, script := range map[string][]string{
		"another protocol":       {"220 mail.example.com ESMTP"},
		"no greeting":            {ok},
		"a greeting twice":       {greeting, "<", greeting},
		"not an object":          {greeting, "<", `[]`},
		"nothing":                {greeting, "<", `{}`},
		"two kinds":              {greeting, "<", `{"return": {}, "error": {"class": "a", "desc": "b"}, "id": 1}`},
		"no id":                  {greeting, "<", `{"return": {}}`},
		"another id":             {greeting, "<", `{"return": {}, "id": 2}`},
		"an id that is a name":   {greeting, "<", `{"return": {}, "id": "1"}`},
		"an answer twice":        {greeting, "<", ok, ok},
		"a message without end":  {greeting, "<", ok, long},
		"a return that does not": {greeting, "<", ok, "<", `{"return": "text", "id": 2}`},
		"deep nesting":           {greeting, "<", ok, `{"event": "E", "data": ` + strings.Repeat("[", 100000)},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := deadline(t)
			c, err := qmp.Dial(ctx, serve(t, script...))
			if err == nil {
				defer c.Close()
				err = c.Execute(ctx, "query-version", nil, &struct{ Package string }{})
			}
			if !errors.Is(err, qmp.ErrProtocol) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	ctx := deadline(t)
	t.Run("silence", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		if _, err := qmp.Dial(short, serve(t)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no greeting ever: %v", err)
		}
		c, err := qmp.Dial(ctx, serve(t, greeting, "<", `{"return": {}, "id": 1}`, "<"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		short, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		if err := c.Execute(short, "stop", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no answer ever: %v", err)
		}
		if err := c.Execute(ctx, "stop", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after a lost answer: %v", err)
		}
	})
	t.Run("events", func(t *testing.T) {
		script := []string{greeting, "<", `{"return": {}, "id": 1}`}
		for i := range 1000 {
			script = append(script, fmt.Sprintf(`{"event": "E%d", "data": {"n": %d}}`, i, i))
		}
		c, err := qmp.Dial(ctx, serve(t, append(script, "<", `{"return": {}, "id": 2}`)...))
		if err != nil {
			t.Fatal(err)
		}
		// Nobody takes the events, and commands work all the same.
		if err := c.Execute(ctx, "stop", nil, nil); err != nil {
			t.Error(err)
		}
		c.Close()
		n := 0
		for e := range c.Events() {
			if want := fmt.Sprintf(`{"n": %d}`, n); e.Name != fmt.Sprintf("E%d", n) || string(e.Data) != want {
				t.Errorf("event %d is %s %s", n, e.Name, e.Data)
			}
			n++
		}
		if n != 64 {
			t.Errorf("%d events were kept", n)
		}
	})
	t.Run("words", func(t *testing.T) {
		refusal := `{"error": {"class": "C", "desc": "` + strings.Repeat(`\u001b`, 5000) + `"}, "id": 2}`
		c, err := qmp.Dial(ctx, serve(t, greeting, "<", `{"return": {}, "id": 1}`, "<", refusal))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = c.Execute(ctx, "stop", nil, nil)
		if err == nil || len(err.Error()) > 10000 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%.200q", err)
		}
	})
}
