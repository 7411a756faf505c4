package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/location"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/retain"
	"github.com/drydock-vm/drydock/internal/round"
)

// lockPatience is how long a round waits for others that work on the repository:
// another host may still be backing up. Nothing but the end of the round waits.
const lockPatience = 10 * time.Minute

// retention implements [round.Retention], on the repository of the backups.
type retention struct {
	h *host
	b *backups
}

// repository is the one that the round's backups went to.
func (r retention) repository(ctx context.Context) (*repository.Repository, error) {
	if r.b.repo != nil {
		return r.b.repo, nil
	}
	return r.h.openRepository(ctx)
}

func (r retention) Retain(ctx context.Context, vms []round.VM) ([]*round.RetainReport, error) {
	repo, err := r.repository(ctx)
	if err != nil {
		return nil, err
	}
	results, err := r.apply(ctx, repo, r.h.policies(vms))
	var reports []*round.RetainReport
	for _, res := range results {
		reports = append(reports, retainReport(res))
	}
	return reports, errors.Join(err, r.h.renew(ctx, repo, r.h.config.Repository))
}

// apply removes nothing, and takes no lock, where all policies keep all.
func (r retention) apply(ctx context.Context, repo *repository.Repository, vms []retain.VM) ([]*retain.Result, error) {
	for _, v := range vms {
		if !v.Policy.Empty() {
			return retain.Apply(ctx, repo, vms, r.h.app.now(), lockPatience)
		}
	}
	plans, err := retain.Make(ctx, repo, vms, r.h.app.now())
	var results []*retain.Result
	for _, p := range plans {
		results = append(results, &retain.Result{Plan: p})
	}
	return results, err
}

func retainReport(r *retain.Result) *round.RetainReport {
	out := &round.RetainReport{Policy: policyText(r.VM.Policy), Kept: len(r.Backups) - len(r.Removed)}
	for _, s := range r.Removed {
		out.Removed = append(out.Removed, s.ID.String())
	}
	for _, s := range r.Futures() {
		out.FromFuture = append(out.FromFuture, s.ID.String())
	}
	if n := r.Newest(); n != nil {
		out.Newest = n.Time
	}
	return out
}

// policyText is "" for a policy that keeps all.
func policyText(p retain.Policy) string {
	if p.Empty() {
		return ""
	}
	return p.String()
}

func (r retention) Prune(ctx context.Context) (*round.PruneReport, error) {
	repo, err := r.repository(ctx)
	if err != nil {
		return nil, err
	}
	return r.h.pruneAt(ctx, repo, r.h.config.Repository)
}

// pruneAt prunes the repository c. What restic packs anew there has no retention, so the
// object lock is renewed afterwards, or by the next round if this process dies.
func (h *host) pruneAt(ctx context.Context, repo *repository.Repository, c config.Repository) (*round.PruneReport, error) {
	opts, err := pruneOptions(c)
	if err != nil {
		return nil, err
	}
	if err := h.renewLater(ctx, c); err != nil {
		return nil, err
	}
	p, err := retain.Prune(ctx, repo, opts)
	err = errors.Join(err, h.renew(ctx, repo, c)) // a prune that failed has stored packs too
	if p == nil {
		return nil, err
	}
	return &round.PruneReport{Duration: p.Duration, Before: p.Before, After: p.After, Output: p.Output}, err
}

// pruneOptions says how restic reaches the repository.
func pruneOptions(c config.Repository) (retain.PruneOptions, error) {
	o := retain.PruneOptions{Location: c.Path, PasswordFile: c.PasswordFile, Patience: lockPatience}
	l, err := location.Parse(c.Path)
	if err != nil {
		return o, fmt.Errorf("repository.path %w", err)
	}
	if c.CAFile != "" {
		o.Args = append(o.Args, "--cacert", c.CAFile)
	}
	if l.Kind == location.SFTP && c.SFTP != nil {
		command, err := sshCommand(c.SFTP, l)
		if err != nil {
			return o, err
		}
		o.Args = append(o.Args, "-o", listed("sftp.command="+command))
	}
	if l.Kind != location.S3 && l.Kind != location.REST {
		return o, nil
	}
	login, err := readCredentials(c.CredentialsFile)
	if err != nil {
		return o, err
	}
	if l.Kind == location.S3 {
		o.Env = []string{"AWS_ACCESS_KEY_ID=" + login.AccessKey, "AWS_SECRET_ACCESS_KEY=" + login.SecretKey, "AWS_SESSION_TOKEN=" + login.SessionToken}
		if c.S3 != nil {
			o.Env = append(o.Env, "AWS_DEFAULT_REGION="+c.S3.Region)
			if c.S3.BucketLookup != "" {
				o.Args = append(o.Args, "-o", "s3.bucket-lookup="+c.S3.BucketLookup)
			}
		}
		return o, nil
	}
	if login.User != "" { // restic 0.14 takes it from the location alone, which it gets by environment
		u := l.URL()
		u.User = url.UserPassword(login.User, login.Password)
		o.Location = "rest:" + u.String()
	}
	return o, nil
}

// listed is a value of an option of which restic takes a list, each argument being a
// record of CSV.
func listed(value string) string {
	if !strings.ContainsAny(value, `",`) {
		return value
	}
	return `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
}

// sshCommand is how restic starts SFTP with the configured key and hosts.
func sshCommand(c *config.SFTP, l location.Location) (string, error) {
	words := []string{"ssh", l.Host}
	if l.User != "" {
		words = append(words, "-l", l.User)
	}
	if l.Port != 0 {
		words = append(words, "-p", strconv.Itoa(int(l.Port)))
	}
	if c.IdentityFile != "" {
		words = append(words, "-i", c.IdentityFile)
	}
	if c.KnownHosts != "" {
		words = append(words, "-o", "UserKnownHostsFile="+c.KnownHosts)
	}
	for i, w := range words {
		var err error
		if words[i], err = quoted(w); err != nil {
			return "", err
		}
	}
	return strings.Join(append(words, "-s", "sftp"), " "), nil
}

// quoted is a word as restic reads it in a command: it cuts at white space and at
// backslashes outside of quotes, and has no way to write a quote within its like.
func quoted(word string) (string, error) {
	switch {
	case !strings.ContainsAny(word, "\"'\\") && !strings.ContainsFunc(word, unicode.IsSpace):
		return word, nil
	case !strings.Contains(word, `"`) && !strings.HasSuffix(word, `\`):
		return `"` + word + `"`, nil
	case !strings.Contains(word, "'") && !strings.HasSuffix(word, `\`):
		return "'" + word + "'", nil
	}
	return "", fmt.Errorf("restic cannot be told of %q (give the file a name with one kind of quotes at most)", word)
}

// policies returns what is kept of the VMs' backups.
func (h *host) policies(vms []round.VM) []retain.VM {
	var out []retain.VM
	for _, v := range vms {
		out = append(out, retain.VM{Name: v.Name, Policy: policy(h.config.VMs[v.Name].Retain), Held: v.Hold != ""})
	}
	return out
}

func policy(c *config.Retain) retain.Policy {
	if c == nil {
		return retain.Policy{}
	}
	p := retain.Policy{Last: c.Last, Hourly: c.Hourly, Daily: c.Daily, Weekly: c.Weekly, Monthly: c.Monthly, Yearly: c.Yearly}
	p.Within.Years, p.Within.Months, p.Within.Days, p.Within.Hours = c.Within.Parts()
	return p
}

// pruneEvery is 0 where nothing is pruned.
func pruneEvery(c *config.Config) time.Duration {
	if c.Prune == nil {
		return 0
	}
	return time.Duration(c.Prune.Every)
}
