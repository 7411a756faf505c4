//go:build linux

package qmp

import (
	"encoding/json"
	"errors"
	"testing"
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
