package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/verify"
)

func (a *app) verifyCmd() *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify [--copy NAME] [--repair] [VM…] | verify --mode boot [VM[@BACKUP]…]",
		Short: "Prove that backups can be read back",
		Long: `Look at all backups, or at those of the VMs that are named, and name what is
damaged: which file of which backup. Nothing in the repository changes, but that
with repository.ecc packs that were read get the parity that they lack. With --copy
it is the backups at one of the copies: of the configuration, by name or location.

  quick   every folder of every backup, that each piece of a file is known, and
          that each pack is there and holds what the index says
  sample  and a share of the content, each day another
  full    and all of the content
  boot    none of that: start the VMs from their newest backups, or from those
          that are named, apart from the world, until their probes pass

Without --mode it is that of the configuration. --repair makes damaged packs again
from their parity, as far as that reaches, stores the rest anew from the copies (of a
copy from the repository), and makes index files again; without --mode it looks at all
of the content. Exit codes: 0 all that was looked at is good, or is again, 1 something is
damaged, does not boot, or could not be looked at.`,
		RunE: func(c *cobra.Command, names []string) error {
			if o.mode != modeBoot {
				return a.verify(c.Context(), names, o)
			}
			switch {
			case c.Flags().Changed("percent"):
				return usageError("--percent is of --mode sample, and not of boot")
			case o.repair:
				return usageError("--repair does not go with --mode boot, which reads no packs")
			case o.copy != "":
				return usageError("--copy does not go with --mode boot: a VM is started from the repository")
			}
			return a.verifyBoot(c.Context(), names)
		},
	}
	c.Flags().StringVar(&o.mode, "mode", "", "quick, sample, full or boot")
	c.Flags().IntVar(&o.percent, "percent", 0, "the share of the content that a sample reads, 1 to 100 (default: that of the configuration)")
	c.Flags().BoolVar(&o.repair, "repair", false, "bring back what is damaged, from parity (repository.ecc) and from the other places")
	c.Flags().StringVar(&o.copy, "copy", "", "look at this copy, and not at the repository")
	return c
}

// verifyOptions are the flags of drydock verify.
type verifyOptions struct {
	mode, copy string
	percent    int // 0: that of the configuration
	repair     bool
}

// check refuses what cannot be meant.
func (o *verifyOptions) check() error {
	if o.mode != "" && !slices.Contains([]string{config.VerifyQuick, config.VerifySample, config.VerifyFull}, o.mode) {
		return usageError("--mode is %q, but must be quick, sample, full or boot", o.mode)
	}
	if o.percent < 0 || o.percent > 100 {
		return usageError("--percent is %d, but must be from 1 to 100", o.percent)
	}
	return nil
}

// proofs are what the options ask for.
func (o *verifyOptions) proofs(h *host, names []string) (*proofs, error) {
	p := h.proofs()
	if o.copy != "" {
		c, err := h.copyNamed(o.copy)
		if err != nil {
			return nil, err
		}
		p = h.copyProofs(c)
	}
	if o.mode == "" && o.repair {
		o.mode = config.VerifyFull
	}
	p.mode, p.percent = verifyMode(o.mode, string(p.mode)), cmp.Or(o.percent, p.percent)
	p.vms, p.repair = names, o.repair
	return p, nil
}

func (a *app) verify(ctx context.Context, names []string, o verifyOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	p, err := o.proofs(h, names)
	if err != nil {
		return err
	}
	report, err := p.run(ctx, a.progress())
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(report.Backups, func(b *verify.Backup) bool { return b.VM == name }) {
			return fmt.Errorf("verify %s: %w", escape.Line(name), restore.ErrNoBackup)
		}
	}
	if a.json {
		if err := a.printJSON(verifyLines(p, report)); err != nil {
			return err
		}
	} else if err := a.printVerify(p, report); err != nil {
		return err
	}
	if !report.Good() {
		return &exitError{exitFailed, fmt.Errorf("damaged: %s", escape.Line(oneLine(damageLines(report))))}
	}
	return nil
}

// verifyMode is the mode that was asked for, or that of the configuration. Where
// rounds do not verify, whoever asks gets a sample.
func verifyMode(asked, configured string) verify.Mode {
	switch {
	case asked != "":
		return verify.Mode(asked)
	case configured == config.VerifyOff:
		return verify.Sample
	}
	return verify.Mode(configured)
}

// progress prints now and then how far a verification is.
func (a *app) progress() func(string) {
	return func(s string) { fmt.Fprintf(a.stderr, "%s\n", s) }
}

// verifyReport is drydock verify --json.
type verifyReport struct {
	Copy      string         `json:"copy,omitempty"` // that was looked at
	Mode      verify.Mode    `json:"mode"`
	Good      bool           `json:"good"`
	Duration  time.Duration  `json:"duration"`
	Folders   int            `json:"folders"`
	Packs     int            `json:"packs"`
	PacksRead int            `json:"packs_read"`
	Bytes     int64          `json:"bytes"`      // of the packs
	BytesRead int64          `json:"bytes_read"` // of these
	Spare     int            `json:"spare_packs"`
	Backups   []verifyBackup `json:"backups"`
	Repaired  []string       `json:"repaired"`            // packs, from their parity
	Replaced  []string       `json:"replaced,omitempty"`  // packs that are not needed any more
	Rescued   int            `json:"rescued,omitempty"`   // blobs of these, which were stored anew
	Reindexed []string       `json:"reindexed,omitempty"` // index files that were made again
	Indexed   []string       `json:"indexed,omitempty"`   // packs that no index named
	Returned  []string       `json:"returned,omitempty"`  // backups that could not be read, and are there again under other IDs
	Damage    []string       `json:"damage"`              // of the repository's files, the first 100
	Total     int            `json:"damage_total"`
}

type verifyBackup struct {
	ID      string       `json:"id"`
	VM      string       `json:"vm"`
	Time    time.Time    `json:"time"`
	Good    bool         `json:"good"`
	Damaged []verifyFile `json:"damaged"`
	More    bool         `json:"more,omitempty"` // there are others
}

type verifyFile struct {
	Path  string `json:"path"` // escaped; of a folder and all below it if it ends with a slash
	Error string `json:"error"`
}

func verifyLines(p *proofs, r *verify.Report) verifyReport {
	out := verifyReport{
		Copy: p.copy, Mode: r.Mode, Good: r.Good(), Duration: r.Duration, Folders: r.Folders, Packs: r.Packs, PacksRead: r.PacksRead,
		Bytes: r.Bytes, BytesRead: r.BytesRead, Spare: r.Spare, Backups: []verifyBackup{}, Repaired: []string{}, Damage: []string{}, Total: r.DamageTotal,
	}
	out.Rescued = r.Rescued
	for list, ids := range map[*[]string][]repository.ID{&out.Repaired: r.Repaired, &out.Replaced: r.Replaced, &out.Reindexed: r.Reindexed, &out.Indexed: r.Indexed, &out.Returned: p.replaced} {
		for _, id := range ids {
			*list = append(*list, id.String())
		}
	}
	for _, b := range r.Backups {
		line := verifyBackup{ID: b.ID.String(), VM: b.VM, Time: b.Time, Good: b.Good(), Damaged: []verifyFile{}, More: b.More}
		for _, f := range b.Damaged {
			line.Damaged = append(line.Damaged, verifyFile{escape.Bytes(f.Path), f.Err.Error()})
		}
		out.Backups = append(out.Backups, line)
	}
	for _, err := range r.Damage {
		out.Damage = append(out.Damage, err.Error())
	}
	return out
}

// printVerify prints a verification for people.
func (a *app) printVerify(p *proofs, r *verify.Report) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BACKUP\tVM\tTIME\tRESULT")
	for _, b := range r.Backups {
		result := "good"
		switch {
		case b.More:
			result = fmt.Sprintf("DAMAGED: more than %d files", len(b.Damaged))
		case !b.Good():
			result = fmt.Sprintf("DAMAGED: %d files or folders", len(b.Damaged))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", b.ID.Short(), escape.Line(b.VM), b.Time.Local().Format(time.DateTime), result)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	a.printf("\n%s: %d folders, %d packs, of which %d were read, %s of %s, in %s\n", r.Mode, r.Folders, r.Packs, r.PacksRead,
		round.Bytes(r.BytesRead), round.Bytes(r.Bytes), span(r.Duration))
	for _, id := range r.Repaired {
		a.printf("repaired: pack %s\n", id.Short())
	}
	for _, id := range r.Replaced {
		a.printf("replaced: pack %s; what it held is stored anew\n", id.Short())
	}
	for _, id := range p.replaced {
		a.printf("brought back: backup %s, which has another ID now\n", id.Short())
	}
	for _, id := range r.Reindexed {
		a.printf("made again: index file %s\n", id.Short())
	}
	if n := len(r.Indexed); n > 0 {
		a.printf("in the index again: %d packs, which no index file named\n", n)
	}
	for _, l := range damageLines(r) {
		a.printf("! %s\n", escape.Line(l))
	}
	return nil
}

// damageLines names what is damaged, the guests' files first.
func damageLines(r *verify.Report) []string {
	var out []string
	for _, b := range r.Backups {
		for _, f := range b.Damaged {
			out = append(out, fmt.Sprintf("%s@%s:%s: %v", escape.Line(b.VM), b.ID.Short(), escape.Bytes(f.Path), f.Err))
		}
		if b.More {
			out = append(out, fmt.Sprintf("%s@%s: more files are damaged than are named", escape.Line(b.VM), b.ID.Short()))
		}
	}
	for _, err := range r.Damage {
		out = append(out, err.Error())
	}
	if more := r.DamageTotal - len(r.Damage); more > 0 {
		out = append(out, fmt.Sprintf("%d more files of the repository are damaged", more))
	}
	return out
}

// wanted says which snapshots belong to the VMs; all of them without any.
func wanted(vms []string) func(*repository.Snapshot) bool {
	if len(vms) == 0 {
		return nil
	}
	return func(s *repository.Snapshot) bool { return slices.Contains(vms, s.Hostname) }
}
