package demo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/demo/guest"
	"github.com/drydock-vm/drydock/internal/escape"
)

// What the guest writes in its first night, and deletes at the boot that
// follows the snapshot.
const (
	letter    = "/var/lib/app/letter.txt"
	letterSum = "/var/lib/app/letter.sha256"
)

func (d *demo) firstNight(ctx context.Context) error {
	d.title("Both machines go to sea")
	if err := d.drydock(ctx, 0, "start"); err != nil {
		return err
	}
	version, err := d.webVersion(ctx)
	if err != nil {
		return err
	}
	d.note("web before the first night", "image version %s", version)

	d.title("Night 1: stop, snapshot, start, health; then the backup, while both run")
	if err := d.drydock(ctx, 0, "plan"); err != nil {
		return err
	}
	if err := d.drydock(ctx, 0, "run"); err != nil {
		return err
	}
	return d.noteRound(ctx, "night 1")
}

// build waits until the builder has built. Nothing connects it with the host:
// all that there is to see is its serial console.
func (d *demo) build(ctx context.Context) error {
	d.title("The BUILD: inside the builder, from a Containerfile, with nothing to talk to")
	start := time.Now()
	path := d.path("state", "log", "builder.console.log")
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := &follower{f: bufio.NewReader(f)}
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		line, ok := lines.next()
		if !ok {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		_, text, ours := strings.Cut(line, "drydock build: ")
		if !ours {
			continue
		}
		d.say("  builder │ %s", escape.Line(strings.TrimRight(text, "\r\n")))
		switch {
		case strings.HasPrefix(text, "finished"):
			d.note("the build, inside the builder", "%s", time.Since(start).Round(time.Second))
			return nil
		case strings.HasPrefix(text, "failed"):
			return errors.New("the build failed; see " + path)
		}
	}
	return errors.New("the build did not end in 5 minutes; see " + path)
}

// follower reads whole lines from a file that grows.
type follower struct {
	f    *bufio.Reader
	part string
}

func (l *follower) next() (string, bool) {
	s, err := l.f.ReadString('\n')
	l.part += s
	if err != nil {
		return "", false
	}
	line := l.part
	l.part = ""
	return line, true
}

func (d *demo) secondNight(ctx context.Context) error {
	d.title("Night 2: the builder's image is harvested, and web is refitted with it")
	if err := d.drydock(ctx, 0, "run"); err != nil {
		return err
	}
	version, err := d.webVersion(ctx)
	if err != nil {
		return err
	}
	d.note("web after the second night", "image version %s", version)
	if err := d.drydock(ctx, 1, "due", "builder"); err != nil {
		return err
	}
	if err := d.drydock(ctx, 0, "images", "list"); err != nil {
		return err
	}
	return d.noteRound(ctx, "night 2")
}

func (d *demo) thirdNight(ctx context.Context) error {
	d.title("Night 3: an image that boots, but whose service never answers")
	before, err := d.webVersion(ctx)
	if err != nil {
		return err
	}
	current, err := d.currentImage(ctx)
	if err != nil {
		return err
	}
	if err := guest.MakeBroken(ctx, current, d.path("broken.raw")); err != nil {
		return err
	}
	if err := d.drydock(ctx, 0, "images", "import", "web", d.path("broken.raw"), "--version", "broken"); err != nil {
		return err
	}
	if err := d.drydock(ctx, 3, "run", "web"); err != nil {
		return err
	}
	after, err := d.webVersion(ctx)
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("web answers with image version %s, and %s was expected after the roll-back", after, before)
	}
	d.note("web after the third night", "image version %s again, \"broken\" is marked bad", after)
	return d.noteRound(ctx, "night 3")
}

// currentImage is the file of web's current image version.
func (d *demo) currentImage(ctx context.Context) (string, error) {
	out, err := d.output(ctx, "images", "list", "web", "--json")
	if err != nil {
		return "", err
	}
	var versions []struct {
		Version string `json:"version"`
		Current bool   `json:"current"`
	}
	if err := json.Unmarshal([]byte(out), &versions); err != nil {
		return "", err
	}
	for _, v := range versions {
		if v.Current {
			return d.path("state", "images", "web", v.Version, "disk.raw"), nil
		}
	}
	return "", errors.New("the image store has no current version of web")
}

// restore brings back what the guest deleted between night 1 and night 2.
func (d *demo) restore(ctx context.Context) error {
	d.title("A file that the guest has deleted comes back from night 1")
	if err := d.drydock(ctx, 0, "backups", "list", "web"); err != nil {
		return err
	}
	if err := d.drydock(ctx, 0, "ls", "web@latest:/var/lib/app"); err != nil {
		return err
	}
	first, err := d.firstBackup(ctx)
	if err != nil {
		return err
	}
	if err := d.drydock(ctx, 0, "restore", "web@"+first+":"+letter, "--to", d.path("restored")); err != nil {
		return err
	}
	want, err := d.output(ctx, "cat", "web@latest:"+letterSum)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(d.path("restored", letter))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	got := hex.EncodeToString(sum[:])
	if fields := strings.Fields(want); len(fields) == 0 || fields[0] != got {
		return fmt.Errorf("the restored %s has the digest %s, the guest had written %q", letter, got, want)
	}
	d.say("\nThe digest is the one that the guest had noted when it wrote the file: %.16s…", got)
	d.note("the deleted file", "restored from night 1, digest as the guest noted it")
	return nil
}

// firstBackup is the ID of web's oldest backup.
func (d *demo) firstBackup(ctx context.Context) (string, error) {
	out, err := d.output(ctx, "backups", "list", "web", "--json")
	if err != nil {
		return "", err
	}
	var backups []struct {
		ID   string    `json:"id"`
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal([]byte(out), &backups); err != nil {
		return "", err
	}
	if len(backups) < 2 {
		return "", fmt.Errorf("web has %d backups", len(backups))
	}
	first := backups[0]
	for _, b := range backups {
		if b.Time.Before(first.Time) {
			first = b
		}
	}
	return first.ID[:8], nil
}

// judge asks the real restic what it thinks of the repository.
func (d *demo) judge(ctx context.Context) error {
	d.title("The real restic judges the repository")
	restic := func(out io.Writer, args ...string) error {
		return d.command(ctx, out, 0, "restic", append([]string{
			"--repo", d.path("repository"), "--password-file", d.path("state", "repository.key"), "--no-cache", "--quiet",
		}, args...)...)
	}
	if err := restic(d.Out, "snapshots"); err != nil {
		return err
	}
	var listing strings.Builder
	if err := restic(&listing, "ls", "latest", "--host", "web"); err != nil {
		return err
	}
	d.say("(%d files)", strings.Count(listing.String(), "\n"))
	if err := restic(d.Out, "check", "--read-data"); err != nil {
		return err
	}
	d.say("(it has found nothing to complain of)")
	d.note("restic check --read-data", "no errors were found")
	return nil
}

// webVersion asks web which image version it runs.
func (d *demo) webVersion(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", d.web.Port), nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return "", err
	}
	version := escape.Line(strings.TrimSpace(string(body)))
	d.say("web answers: %s", version)
	return version, nil
}

// noteRound takes the newest round's figures into the table at the end.
func (d *demo) noteRound(ctx context.Context, name string) error {
	out, err := d.output(ctx, "history", "--number", "1", "--json")
	if err != nil {
		return err
	}
	var rounds []struct {
		Report struct {
			VMs []struct {
				VM       string        `json:"vm"`
				Downtime time.Duration `json:"downtime"`
				Dock     time.Duration `json:"dock"`
				Backup   *struct {
					Duration time.Duration `json:"duration"`
					Read     int64         `json:"bytes_read"`
					Stored   int64         `json:"bytes_stored"`
				} `json:"backup"`
			} `json:"vms"`
		} `json:"report"`
	}
	if err := json.Unmarshal([]byte(out), &rounds); err != nil {
		return err
	}
	if len(rounds) != 1 {
		return fmt.Errorf("%s is not in the history", name)
	}
	for _, v := range rounds[0].Report.VMs {
		if v.Backup == nil {
			continue
		}
		if v.Downtime == 0 {
			d.note(name+", "+v.VM, "stays off, no build is due; backup %.1f s, read %.1f MiB, stored %.1f MiB",
				v.Backup.Duration.Seconds(), mib(v.Backup.Read), mib(v.Backup.Stored))
			continue
		}
		d.note(name+", "+v.VM, "down %.1f s (of it off %.1f s); backup %.1f s, read %.1f MiB, stored %.1f MiB",
			v.Downtime.Seconds(), v.Dock.Seconds(), v.Backup.Duration.Seconds(), mib(v.Backup.Read), mib(v.Backup.Stored))
	}
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// summary prints the table, where everything lies, and what to try next.
func (d *demo) summary() {
	d.title("Done")
	wide := 0
	for _, n := range d.notes {
		wide = max(wide, len(n.what))
	}
	for _, n := range d.notes {
		d.say("  %-*s  %s", wide, n.what, n.value)
	}
	exe, _ := filepath.Abs(d.Executable)
	me := exe + " --config " + d.path("drydock.yaml")
	d.say(`
Everything lies in %s: the guests in guests/, the restic repository in
repository/ with its key state/repository.key, the image store in state/images/,
the consoles in state/log/, what was restored in restored/.

The machines are off now. Try next:
  %[2]s status
  %[2]s history web
  %[2]s ls web@latest:/var/lib/app
  %[2]s plan
  restic -r %[1]s/repository --password-file %[1]s/state/repository.key ls latest`, d.Dir, me)
}
