//go:build linux

package qmp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// play runs server with the first client of a new socket.
func play(t *testing.T, server func(conn net.Conn, lines *bufio.Scanner)) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var ended sync.WaitGroup
	ended.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		server(conn, bufio.NewScanner(conn))
	})
	t.Cleanup(func() { listener.Close(); ended.Wait() })
	return socket
}

func welcome(conn io.Writer, lines *bufio.Scanner) {
	fmt.Fprintln(conn, greeting)
	lines.Scan()
	fmt.Fprintln(conn, `{"return": {}, "id": 1}`)
}

// Answers find who asked, in whatever order they come and with events between
// them.
func TestAnswersOutOfOrder(t *testing.T) {
	const n = 8
	c, err := qmp.Dial(deadline(t), play(t, func(conn net.Conn, lines *bufio.Scanner) {
		welcome(conn, lines)
		var asked []struct {
			Execute string
			ID      uint64
		}
		for range n {
			lines.Scan()
			asked = append(asked, struct {
				Execute string
				ID      uint64
			}{})
			if err := json.Unmarshal(lines.Bytes(), &asked[len(asked)-1]); err != nil {
				t.Error(err)
			}
		}
		for i := n - 1; i >= 0; i-- {
			fmt.Fprintf(conn, "{\"event\": \"E\"}\r\n{\"return\": {\"command\": %q}, \"id\": %d}\r\n", asked[i].Execute, asked[i].ID)
		}
		lines.Scan()
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			command := fmt.Sprint("command-", i)
			var answer struct{ Command string }
			if err := c.Execute(deadline(t), command, nil, &answer); err != nil || answer.Command != command {
				t.Errorf("%s: the answer is %q, %v", command, answer.Command, err)
			}
		})
	}
	all.Wait()
}

// A message may come in any pieces.
func TestSlowServer(t *testing.T) {
	c, err := qmp.Dial(deadline(t), play(t, func(conn net.Conn, lines *bufio.Scanner) {
		welcome(conn, lines)
		lines.Scan()
		for _, b := range []byte("{\"event\": \"E\"}\r\n{\"return\": {\"n\": 5}, \"id\": 2}\r\n") {
			conn.Write([]byte{b})
			time.Sleep(time.Millisecond)
		}
		lines.Scan()
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var answer struct{ N int }
	if err := c.Execute(deadline(t), "ask", nil, &answer); err != nil || answer.N != 5 {
		t.Errorf("the answer is %d, %v", answer.N, err)
	}
}

// A server that reads nothing any more holds up nobody for longer than the
// context lasts.
func TestServerThatDoesNotRead(t *testing.T) {
	release := make(chan struct{})
	c, err := qmp.Dial(deadline(t), play(t, func(conn net.Conn, lines *bufio.Scanner) {
		welcome(conn, lines)
		<-release
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer close(release)
	for _, size := range []int{10, 4 << 20} { // the second is more than a socket buffers
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		err := c.Execute(ctx, "eat", map[string]string{"food": strings.Repeat("x", size)}, nil)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	}
}

// Where a server's line is full (QEMU's has two places), one waits for a place
// in it.
func TestFullLine(t *testing.T) {
	ctx := deadline(t)
	socket := filepath.Join(t.TempDir(), "s")
	server, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(server)
	if err := errors.Join(unix.Bind(server, &unix.SockaddrUnix{Name: socket}), unix.Listen(server, 0)); err != nil {
		t.Fatal(err)
	}
	first, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if conn, err := net.Dial("unix", socket); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("the line is not full: %v, %v", conn, err)
	}

	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := qmp.Dial(short, socket); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody leaves the line: %v", err)
	}
	dialled := make(chan error, 1)
	go func() {
		c, err := qmp.Dial(ctx, socket)
		if err == nil {
			c.Close()
		}
		dialled <- err
	}()
	for _, serve := range []bool{false, true} {
		fd, _, err := unix.Accept(server)
		if err != nil {
			t.Fatal(err)
		}
		conn := os.NewFile(uintptr(fd), "client")
		defer conn.Close()
		if serve {
			welcome(conn, bufio.NewScanner(conn))
		}
	}
	if err := <-dialled; err != nil {
		t.Errorf("after a place became free: %v", err)
	}
}
