//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// From linux/input.h and linux/input-event-codes.h. On 64 bits an event is:
//
//	0   16  time
//	16   2  type
//	18   2  code
//	20   4  value: 1 pressed, 0 released
const (
	eventSize = 24
	evKey     = 1
	keyPower  = 116
)

// watchPowerButton returns a channel that receives nil when the ACPI power
// button is pressed, or the error that ended the watch. With
// /etc/ignore-power-button on the root disk it receives nothing.
func watchPowerButton() (<-chan error, error) {
	pressed := make(chan error, 1)
	path, err := findPowerButton()
	if err != nil {
		return nil, err
	}
	device, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	go func() {
		defer device.Close()
		for exists("/etc/ignore-power-button") {
			if err := waitPressed(device); err != nil {
				pressed <- err
				return
			}
			fmt.Println("testguest: power button ignored")
		}
		pressed <- waitPressed(device)
	}()
	return pressed, nil
}

// findPowerButton names the input device of the button, which appears a
// moment after its module is loaded.
func findPowerButton() (string, error) {
	for range 100 {
		names, err := filepath.Glob("/sys/class/input/event*/device/name")
		if err != nil {
			return "", err
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err == nil && strings.TrimSpace(string(content)) == "Power Button" {
				event := filepath.Base(filepath.Dir(filepath.Dir(name)))
				return filepath.Join("/dev/input", event), nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "", errors.New("there is no power button")
}

func waitPressed(device io.Reader) error {
	var event [eventSize]byte
	for {
		if _, err := io.ReadFull(device, event[:]); err != nil {
			return fmt.Errorf("read the power button: %w", err)
		}
		if binary.NativeEndian.Uint16(event[16:]) == evKey &&
			binary.NativeEndian.Uint16(event[18:]) == keyPower &&
			binary.NativeEndian.Uint32(event[20:]) == 1 {
			return nil
		}
	}
}
