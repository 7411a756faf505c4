package guest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// suite of the guests, whatever the host is.
const suite = "bookworm"

// packageSet is what mmdebstrap makes a root filesystem from.
type packageSet struct {
	name     string
	packages []string
}

var (
	webPackages     = packageSet{"web", []string{"systemd-sysv", "udev", "dbus", "busybox-static"}}
	builderPackages = packageSet{"builder", []string{"buildah", "e2fsprogs"}}
)

// debian returns the tar of a Debian root filesystem, with the packages of base
// (another such tar, if not empty) and of the set. It is made once and kept in
// the cache.
func (m *maker) debian(ctx context.Context, set packageSet, base string) (string, error) {
	sources, err := hostSources(ctx)
	if err != nil {
		return "", err
	}
	arguments := []string{
		"--include=" + strings.Join(set.packages, ","),
		`--aptopt=APT::Install-Recommends "false"`,
		// The tree is thrown away when it fails: there is nothing to sync.
		"--dpkgopt=force-unsafe-io",
		// An ordinary user could not unpack the devices again; the guest's
		// kernel makes its own.
		"--skip=output/dev",
		"--format=tar",
	}
	if base == "" {
		arguments = append(arguments, "--variant=essential",
			// Begin with what usrmerge would make, at the price of all of perl.
			"--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
	} else {
		arguments = append(arguments, "--variant=custom", "--skip=check/empty", "--setup-hook=tar-in "+base+" /")
	}
	sum := sha256.Sum256([]byte(fmt.Sprint(arguments, sources)))
	path := filepath.Join(m.Cache, "guest", fmt.Sprintf("%s-%x.tar", set.name, sum[:6]))
	if _, err := os.Stat(path); err == nil {
		m.say("%s: Debian packages from the cache", set.name)
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	temporary := path + ".tmp"
	defer os.Remove(temporary)
	m.say("%s: installing Debian %s with %s", set.name, suite, strings.Join(set.packages, ", "))
	arguments = append(append(arguments, suite, temporary), sources...)
	if err := m.mmdebstrap(ctx, set.name, arguments); err != nil {
		return "", err
	}
	return path, os.Rename(temporary, path)
}

// mmdebstrap runs it, and passes on its own lines, but not those of the many
// programs below it: these are only in the error.
func (m *maker) mmdebstrap(ctx context.Context, name string, arguments []string) error {
	command := exec.CommandContext(ctx, "mmdebstrap", arguments...)
	reader, writer := io.Pipe()
	command.Stdout, command.Stderr = writer, writer
	if err := command.Start(); err != nil {
		return fmt.Errorf("%w (run scripts/install-deps demo)", err)
	}
	ended := make(chan error, 1)
	go func() {
		err := command.Wait()
		writer.Close()
		ended <- err
	}()
	var tail []string
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		line := lines.Text()
		if step, own := strings.CutPrefix(line, "I: "); own && strings.HasSuffix(step, "...") {
			m.say("%s: %s", name, step)
		}
		tail = append(tail, line)
		tail = tail[max(0, len(tail)-tailLines):]
	}
	if err := errors.Join(lines.Err(), <-ended); err != nil {
		return fmt.Errorf("mmdebstrap %s: %w\n%s", name, err, strings.Join(tail, "\n"))
	}
	return nil
}

// tailLines is how much of a failed program's output its error shows.
const tailLines = 15

// hostSources returns lines of sources.list for the suite, its updates and its
// security updates, as far as this host is set up for them; or nothing, which
// means Debian's own servers.
func hostSources(ctx context.Context) ([]string, error) {
	output, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN)\t$(CODENAME)\t$(COMPONENT)\tdeb $(SITE) $(RELEASE) main",
		"Created-By: Packages").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w", err)
	}
	var sources []string
	for line := range strings.Lines(string(output)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) == 4 && fields[0] == "Debian" && fields[2] == "main" &&
			(fields[1] == suite || strings.HasPrefix(fields[1], suite+"-")) {
			sources = append(sources, fields[3])
		}
	}
	return sources, nil
}
