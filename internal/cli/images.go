package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/round"
)

func (a *app) imagesCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "images",
		Short: "The image store: list, import, promote, roll back",
		RunE:  group,
	}
	c.AddCommand(a.imagesListCmd(), a.imagesImportCmd(), a.imagesPromoteCmd(), a.imagesRollbackCmd(), a.imagesBadCmd(), a.imagesRmCmd())
	return c
}

// imageLine is one version in drydock images list.
type imageLine struct {
	image.Version
	Current bool     `json:"current"`
	Bad     string   `json:"bad,omitempty"` // why it is marked bad
	UsedBy  []string `json:"used_by,omitempty"`
}

func (a *app) imagesListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list [IMAGE]",
		Short: "The versions of each image, newest first",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE:  func(c *cobra.Command, names []string) error { return a.imagesList(c.Context(), names) },
	}
}

func (a *app) imagesList(ctx context.Context, names []string) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	if len(names) == 0 {
		if names, err = h.images.Images(); err != nil {
			return err
		}
	}
	lines := []imageLine{}
	for _, n := range names {
		l, err := h.imageLines(n)
		if err != nil {
			return err
		}
		lines = append(lines, l...)
	}
	if a.json {
		return a.printJSON(lines)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tVERSION\tSIZE\tSHA256\tIMPORTED\tSTATE\tUSED BY")
	for _, l := range lines {
		st := "-"
		switch {
		case l.Bad != "":
			st = "bad"
		case l.Current:
			st = "current"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.12s\t%s\t%s\t%s\n", l.Image, l.ID, round.Bytes(l.Size), l.SHA256,
			l.Imported.Local().Format(time.DateTime), st, commas(l.UsedBy))
	}
	return w.Flush()
}

func (h *host) imageLines(name string) ([]imageLine, error) {
	versions, err := h.images.List(name)
	if err != nil {
		return nil, err
	}
	current, err := h.images.Current(name)
	if err != nil && !errors.Is(err, image.ErrNoVersion) {
		return nil, err
	}
	installed, err := h.images.AllInstalled()
	if err != nil {
		return nil, err
	}
	var out []imageLine
	for _, v := range versions {
		l := imageLine{Version: v, Current: v.ID == current.ID}
		if v.Bad {
			l.Bad = cmp.Or(v.BadReason, "no reason given")
		}
		for _, in := range installed {
			if in.Image == v.Image && in.Version == v.ID {
				l.UsedBy = append(l.UsedBy, in.VM+"/"+in.Disk)
			}
		}
		out = append(out, l)
	}
	return out, nil
}

func (a *app) imagesImportCmd() *cobra.Command {
	var version, sum string
	var promote bool
	c := &cobra.Command{
		Use:   "import IMAGE FILE",
		Short: "Store a raw disk as a new version",
		Long: `Store the raw disk FILE as a new version of IMAGE. It is copied and not looked
into. By default it becomes the current version, which the next round installs.`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, names []string) error {
			return a.changeImages(c.Context(), func(h *host) error {
				return h.importImage(c.Context(), names[0], names[1], version, sum, promote)
			})
		},
	}
	c.Flags().StringVar(&version, "version", "", "name of the version (by default made of time and digest)")
	c.Flags().StringVar(&sum, "sha256", "", "digest that FILE must have")
	c.Flags().BoolVar(&promote, "promote", true, "make it the current version")
	return c
}

func (h *host) importImage(ctx context.Context, name, path, version, sum string, promote bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	v, err := h.images.Import(ctx, name, version, f, image.Want{SHA256: sum}, image.Meta{Origin: path})
	if err != nil && !errors.Is(err, image.ErrUnchanged) {
		return err
	}
	if promote {
		if err := h.images.Promote(name, v.ID); err != nil {
			return err
		}
	}
	if h.app.json {
		return h.app.printJSON(v)
	}
	if err != nil {
		h.app.printf("%s %s is there already, with this digest\n", v.Image, v.ID)
		return nil
	}
	h.app.printf("imported %s %s, %s, sha256 %s\n", v.Image, v.ID, round.Bytes(v.Size), v.SHA256)
	return nil
}

func (a *app) imagesPromoteCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "promote IMAGE VERSION",
		Short: "Make a version the one that the next round installs",
		Args:  args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, names []string) error {
			return a.changeImages(c.Context(), func(h *host) error {
				if err := h.images.Promote(names[0], names[1]); err != nil {
					return err
				}
				a.printf("%s %s is the current version\n", names[0], names[1])
				return nil
			})
		},
	}
}

func (a *app) imagesRollbackCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "rollback IMAGE",
		Short: "Make the version before the current one the current one",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			return a.changeImages(c.Context(), func(h *host) error {
				v, err := h.images.Rollback(names[0])
				if err != nil {
					return err
				}
				a.printf("%s %s is the current version; drydock run installs it\n", v.Image, v.ID)
				return nil
			})
		},
	}
}

func (a *app) imagesBadCmd() *cobra.Command {
	var reason string
	var undo bool
	c := &cobra.Command{
		Use:   "bad IMAGE VERSION",
		Short: "Mark a version bad, so that it is never installed",
		Args:  args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, names []string) error {
			return a.changeImages(c.Context(), func(h *host) error {
				if undo {
					return h.images.UnmarkBad(names[0], names[1])
				}
				return h.images.MarkBad(names[0], names[1], reason)
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "marked by hand", "why")
	c.Flags().BoolVar(&undo, "undo", false, "take the mark back")
	return c
}

func (a *app) imagesRmCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "rm IMAGE VERSION",
		Short: "Remove a version that nothing uses",
		Args:  args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, names []string) error {
			return a.changeImages(c.Context(), func(h *host) error { return h.images.Remove(names[0], names[1]) })
		},
	}
}

// changeImages changes the image store with the host's lock held: a round must
// not find a version gone that it has just chosen.
func (a *app) changeImages(ctx context.Context, change func(*host) error) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	lock, err := h.lock("images")
	if err != nil {
		return err
	}
	defer lock.Release()
	return change(h)
}

func commas(s []string) string {
	if len(s) == 0 {
		return "-"
	}
	out := s[0]
	for _, x := range s[1:] {
		out += ", " + x
	}
	return out
}
