// Command drydock takes every virtual machine of a Linux host into the dock each
// night. All of it is in package cli.
package main

import (
	"os"

	"github.com/drydock-vm/drydock/internal/cli"
	"github.com/drydock-vm/drydock/internal/sandbox"
	"github.com/drydock-vm/drydock/internal/writervm/guest"
)

func main() {
	// A disk reader must confine itself before anything else has run.
	if len(os.Args) > 1 && os.Args[1] == sandbox.Verb {
		os.Exit(sandbox.WorkerMain())
	}
	// The machine that writes images has nothing else in it.
	if len(os.Args) > 1 && os.Args[1] == guest.Verb && os.Getpid() == 1 {
		guest.Main(os.Args[2:])
	}
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
