// Command drydock takes every virtual machine of a Linux host into the dock each
// night. All of it is in package cli.
package main

import (
	"os"

	"github.com/drydock-vm/drydock/internal/cli"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

func main() {
	// A disk reader must confine itself before anything else has run.
	if len(os.Args) > 1 && os.Args[1] == sandbox.Verb {
		os.Exit(sandbox.WorkerMain())
	}
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
