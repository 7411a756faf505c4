package sandbox

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/sandbox/confine"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
	"github.com/drydock-vm/drydock/internal/sandbox/worker"
)

// The test binary plays every process of these tests, by its first argument.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-") {
		os.Exit(m.Run())
	}
	switch role := os.Args[1]; role {
	case Verb:
		os.Exit(WorkerMain())
	case "probing":
		os.Exit(worker.Program{Test: attempt}.Main())
	case "probing-unconfined":
		os.Exit(worker.Program{Test: attempt, Confine: unconfined}.Main())
	case "liar":
		os.Exit(lie(os.Args[2]))
	case "beggar":
		os.Exit(begIn(os.Args[2]))
	case "starter":
		os.Exit(startAndWait(os.Args[2]))
	default:
		fmt.Fprintln(os.Stderr, "unknown role", role)
		os.Exit(1)
	}
}

// unconfined claims that everything is in force and does nothing.
func unconfined(confine.Options) []wire.Measure { return claims() }

func claims() []wire.Measure {
	var list []wire.Measure
	for _, name := range Measures() {
		list = append(list, wire.Measure{Name: name, OK: true})
	}
	return list
}
