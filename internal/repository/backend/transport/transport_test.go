package transport_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
)

// serve takes one connection, and gives it to do.
func serve(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		do(c)
	}()
	return l.Addr().String()
}

const stall = 400 * time.Millisecond

// What is silent fails in both directions.
func TestStall(t *testing.T) {
	done := make(chan struct{})
	defer close(done)
	for name, act := range map[string]func(net.Conn) error{
		"read": func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"write": func(c net.Conn) error {
			for {
				if _, err := c.Write(make([]byte, 32<<10)); err != nil { // until the buffers are full
					return err
				}
			}
		},
	} {
		c, err := transport.Dial(t.Context(), serve(t, func(net.Conn) { <-done }), stall)
		if err != nil {
			t.Fatal(err)
		}
		err = act(c)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || !strings.Contains(err.Error(), "no byte moved for 400ms") {
			t.Errorf("%s: %v", name, err)
		}
		_ = c.Close()
	}
}

// Who waits for an answer while an upload goes on is not stalled.
func TestUploadIsNoStall(t *testing.T) {
	const pieces = 8
	c, err := transport.Dial(t.Context(), serve(t, func(c net.Conn) {
		_, _ = io.CopyN(io.Discard, c, pieces)
		_, _ = c.Write([]byte("!"))
	}), stall)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	answer := make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); answer <- err }()
	for range pieces { // takes twice the time of a stall
		time.Sleep(stall / 4)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

func TestBudget(t *testing.T) {
	b := transport.Limited(strings.NewReader("0123456789"), 4)
	got, err := io.ReadAll(b)
	if string(got) != "0123" || !errors.Is(err, transport.ErrTooLong) {
		t.Errorf("read %q, %v", got, err)
	}
	b.Allow(100)
	if got, err = io.ReadAll(b); string(got) != "456789" || err != nil {
		t.Errorf("then read %q, %v", got, err)
	}
}

func TestCAs(t *testing.T) {
	if _, err := transport.HTTP(transport.Options{CAs: []byte("rubbish")}); err == nil {
		t.Error("rubbish was taken for a certificate")
	}
}
