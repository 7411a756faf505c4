package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// MakeBroken copies an image of web, raw, to out, and breaks the copy: it boots,
// but its service never answers. The image is not mounted, and stays a valid
// filesystem.
func MakeBroken(ctx context.Context, image, out string) error {
	if err := makeBroken(ctx, image, out); err != nil {
		return fmt.Errorf("make a broken image: %w", err)
	}
	return nil
}

func makeBroken(ctx context.Context, image, out string) error {
	out, err := filepath.Abs(out) // debugfs runs elsewhere
	if err != nil {
		return err
	}
	if err := run(ctx, "cp", "--sparse=always", "--reflink=auto", "--no-preserve=mode", image, out); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(out), ".broken.*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "version"), []byte("web-broken\n"), 0o644); err != nil {
		return err
	}
	script := "rm /etc/image-version\nwrite version /etc/image-version\nwrite version /etc/broken\n"
	command := exec.CommandContext(ctx, "debugfs", "-w", "-f", "-", out)
	command.Dir = work
	command.Stdin = bytes.NewBufferString(script)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("debugfs: %w: %s", err, output)
	}
	// debugfs reports no failure: look for what it was to do.
	output, err := exec.CommandContext(ctx, "debugfs", "-R", "cat /etc/broken", out).Output()
	if err != nil {
		return fmt.Errorf("debugfs: %w", err)
	}
	if string(output) != "web-broken\n" {
		return errors.New("debugfs did not write /etc/broken")
	}
	return run(ctx, "e2fsck", "-fn", out)
}
