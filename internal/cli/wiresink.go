package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sink"
)

// sinks implements [round.Sinks] with the programs of the configuration.
type sinks struct{ h *host }

func (s *sinks) Sink(ctx context.Context, v round.VM, name string, sources []round.Source) (*round.SinkReport, error) {
	c := s.h.config.VMs[v.Name].Sinks[name]
	if len(c.Disks) > 0 {
		sources = slices.DeleteFunc(slices.Clone(sources), func(src round.Source) bool { return !slices.Contains(c.Disks, src.Disk.Name) })
	}
	b := &backups{h: s.h}
	r, err := b.start(ctx, v, sources)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p := program(c)
	var disks []sink.Disk
	for i, src := range sources {
		d := sink.Disk{Name: src.Disk.Name, Content: r.Disks()[i]}
		if p.Input != sink.Raw {
			if d.FS, err = diskFilesystem(ctx, r, b.config(v, src)); err != nil {
				return nil, fmt.Errorf("disk %s: %w", d.Name, err)
			}
		}
		disks = append(disks, d)
	}
	rep, err := sink.Run(ctx, p, sink.VM{Name: v.Name, Time: s.h.app.now()}, disks, sink.Options{})
	if err != nil {
		return nil, err
	}
	return &round.SinkReport{Sink: name, Duration: rep.Duration, Warnings: rep.Warnings}, nil
}

func program(c *config.Sink) sink.Program {
	timeout := time.Duration(c.Timeout)
	if b := c.Borg; b != nil {
		return sink.Borg(sink.BorgOptions{Name: c.Name, Repository: b.Repository, Passphrase: b.PassphraseFile, Args: b.Args, Timeout: timeout})
	}
	return sink.Program{Name: c.Name, Args: c.Command, Input: sink.Input(c.Input), Timeout: timeout}
}
