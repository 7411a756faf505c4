package retain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/printed"
	"github.com/drydock-vm/drydock/internal/repository"
)

// PruneOptions say how restic is run.
type PruneOptions struct {
	Location     string        // of the repository, as restic writes it
	PasswordFile string        // restic reads it; a password is never an argument
	Env          []string      // what the location needs besides, "KEY=value"
	Args         []string      // the same, as options of restic
	Program      string        // "" is restic in PATH
	Patience     time.Duration // for others who work on the repository
}

// Pruned is what a prune did.
type Pruned struct {
	Before, After int64 // bytes of all packs
	Duration      time.Duration
	Output        []string // what restic said, the last lines of it, escaped
}

const (
	// maxOutput is how much of restic's output is kept, in bytes.
	maxOutput = 16 << 10
	// maxOutputLines is how many lines of it are kept.
	maxOutputLines = 60
	// interruptTime is what restic has to put its locks away when it is called
	// off.
	interruptTime = 30 * time.Second
)

// ErrNoRestic is of a host without restic.
var ErrNoRestic = errors.New("restic is not installed, and prune is its work")

// Prune has restic give back the space of what no snapshot needs any more. First
// it takes, and gives back, the exclusive lock that restic is about to take: so
// locks of dead processes are out of its way, and a repository that others work
// on is [repository.ErrLocked], and not a text of restic's. Last, the parity of the
// packs that are gone goes too.
//
// While backups cannot be read nothing is pruned, as restic has it.
//
// When ctx is done restic is asked to stop, and what it did until then is whole.
func Prune(ctx context.Context, repo *repository.Repository, opts PruneOptions) (*Pruned, error) {
	program := opts.Program
	if program == "" {
		program = "restic"
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("prune: %w (install the package of that name, or set prune.every: 0s): %w", ErrNoRestic, err)
	}
	if err := allReadable(ctx, repo); err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	p := &Pruned{}
	if p.Before, err = repo.PackSize(ctx); err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	lock, err := repo.LockPatiently(ctx, true, opts.Patience)
	if err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	if err := lock.Unlock(ctx); err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	started := time.Now()
	out, err := runRestic(ctx, path, opts)
	p.Duration, p.Output = time.Since(started), lines(out)
	if err != nil {
		return p, fmt.Errorf("prune: restic: %w: %s", err, lastLine(p.Output))
	}
	if p.After, err = repo.PackSize(ctx); err != nil {
		return p, fmt.Errorf("prune: %w", err)
	}
	if _, err := repo.RemoveParity(ctx); err != nil {
		return p, fmt.Errorf("prune: %w", err)
	}
	return p, nil
}

// allReadable returns an error while backups cannot be read.
func allReadable(ctx context.Context, repo *repository.Repository) error {
	all, err := repo.Snapshots(ctx)
	if err == nil || !repository.IsDamage(err) {
		return err
	}
	bad, err := repo.DamagedSnapshots(ctx, all)
	if err != nil || len(bad) == 0 {
		return err
	}
	return fmt.Errorf("put off: %w: backups that cannot be read: %d, the first is %s; what they need is not known (drydock verify says what to do)", repository.ErrDamaged, len(bad), bad[0].Short())
}

func runRestic(ctx context.Context, path string, opts PruneOptions) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, append([]string{"prune", "--no-cache"}, opts.Args...)...)
	cmd.Env = append(append(os.Environ(), opts.Env...),
		"RESTIC_REPOSITORY="+opts.Location, "RESTIC_PASSWORD_FILE="+opts.PasswordFile,
		"RESTIC_PASSWORD=", "RESTIC_PASSWORD_COMMAND=", "RESTIC_REPOSITORY_FILE=", // not those of whoever called drydock
		"RESTIC_PROGRESS_FPS=0.01", "LC_ALL=C.UTF-8")
	out := &printed.Tail{Limit: maxOutput}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = interruptTime
	err := cmd.Run()
	if ctx.Err() != nil && err != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	kept, _ := out.Bytes()
	return kept, err
}

// lines cuts output into lines that can be printed.
func lines(out []byte) []string {
	var list []string
	for line := range strings.SplitSeq(string(out), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, escape.Line(line))
		}
	}
	return list[max(0, len(list)-maxOutputLines):]
}

func lastLine(list []string) string {
	if len(list) == 0 {
		return "it said nothing"
	}
	return list[len(list)-1]
}
