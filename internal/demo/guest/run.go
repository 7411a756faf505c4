package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// run runs a program, whose output only its error shows.
func run(ctx context.Context, name string, arguments ...string) error {
	output, err := exec.CommandContext(ctx, name, arguments...).CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(output)), "\n")
		lines = lines[max(0, len(lines)-tailLines):]
		return fmt.Errorf("%s: %w\n%s", name, err, strings.Join(lines, "\n"))
	}
	return nil
}

// asRoot is the command for a program that must see, or set, root's ownership
// in a tree: for an ordinary user, one in a user namespace in which this user
// is root and the other owners are those of /etc/subuid.
func asRoot(name string, arguments ...string) []string {
	command := append([]string{name}, arguments...)
	if os.Getuid() != 0 {
		command = append([]string{"unshare", "--map-root-user", "--map-auto", "--"}, command...)
	}
	return command
}

func runAsRoot(ctx context.Context, name string, arguments ...string) error {
	command := asRoot(name, arguments...)
	return run(ctx, command[0], command[1:]...)
}

func removeTree(ctx context.Context, tree string) error {
	return runAsRoot(ctx, "rm", "-rf", tree)
}
