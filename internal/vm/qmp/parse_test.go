//go:build linux

package qmp

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

var messages = []string{
	`{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}`,
	`{"return": {}, "id": 1}`,
	`{"return": null, "id": 18446744073709551615}`,
	`{"error": {"class": "GenericError", "desc": "no"}, "id": 2}`,
	`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "POWERDOWN"}`,
	`{"event": "SHUTDOWN", "data": {"guest": true}}`,
}

func TestParse(t *testing.T) {
	for _, line := range messages {
		if _, err := parse([]byte(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// What is accepted is of one kind and means the same when it is written and
// read again; what is not is no protocol.
func FuzzParse(f *testing.F) {
	for _, line := range messages {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parse(line)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatalf("error %v", err)
			}
			return
		}
		kind := map[string]any{}
		switch {
		case m.Greeting != nil:
			kind["QMP"] = m.Greeting
		case m.Return != nil:
			kind["return"] = m.Return
		case m.Error != nil:
			kind["error"] = m.Error
		default:
			kind["event"] = m.Event
		}
		again, err := json.Marshal(kind)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parse(again); err != nil {
			t.Fatalf("%s was accepted, %s not: %v", line, again, err)
		}
	})
}

// A stream means the same in whatever pieces it comes, has no more messages than
// lines, and ends in one of the two errors that a stream can end in.
func FuzzReader(f *testing.F) {
	f.Add([]byte(strings.Join(messages, "\r\n") + "\r\n"))
	f.Add([]byte(messages[0] + "\n" + messages[1])) // cut off after an object
	f.Add([]byte(messages[0] + "\n" + messages[1][:5]))
	f.Add([]byte("\r\n\n" + messages[0]))
	f.Add([]byte(messages[0] + messages[1] + "\n"))
	all := func(t *testing.T, r io.Reader) (got []message) {
		for messages := newReader(r); ; {
			m, err := messages.next()
			if err == nil {
				got = append(got, m)
				continue
			}
			if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrProtocol) {
				t.Fatalf("error %v", err)
			}
			return got
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole := all(t, bytes.NewReader(stream))
		if lines := bytes.Count(stream, []byte("\n")) + 1; len(whole) > lines {
			t.Errorf("%d messages in %d lines", len(whole), lines)
		}
		if pieces := all(t, iotest.OneByteReader(bytes.NewReader(stream))); !reflect.DeepEqual(whole, pieces) {
			t.Errorf("at once %v, byte by byte %v", whole, pieces)
		}
	})
}
