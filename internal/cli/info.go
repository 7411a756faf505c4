package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// diskLine is one disk in drydock info.
type diskLine struct {
	Name        string         `json:"name"`
	Format      string         `json:"format"`
	Version     int            `json:"version,omitempty"` // of qcow2
	Size        int64          `json:"size"`              // bytes
	ClusterSize int64          `json:"cluster_size,omitempty"`
	Compression string         `json:"compression,omitempty"`
	Subclusters bool           `json:"subclusters,omitempty"`
	Dirty       bool           `json:"dirty,omitempty"` // the image was not closed
	Snapshots   []snapshotLine `json:"snapshots,omitempty"`
	Bitmaps     []bitmapLine   `json:"bitmaps,omitempty"`
}

// bitmapLine is a persistent dirty bitmap. Name is escaped.
type bitmapLine struct {
	Name        string `json:"name"`
	Granularity int64  `json:"granularity"` // bytes
	State       string `json:"state"`
}

// snapshotLine is an internal snapshot. ID and Name are escaped.
type snapshotLine struct {
	ID   string    `json:"id"`
	Name string    `json:"name"`
	Time time.Time `json:"time"`
}

// volumeLine is one volume in drydock info. Labels are escaped.
type volumeLine struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind"`
	In        string   `json:"in,omitempty"` // the volume that a partition lies in
	On        []string `json:"on,omitempty"` // the volumes that this one lies on
	Offset    int64    `json:"offset,omitempty"`
	Size      int64    `json:"size"`
	Table     string   `json:"table,omitempty"`
	Number    int      `json:"number,omitempty"`
	PartType  string   `json:"parttype,omitempty"`
	PartUUID  string   `json:"partuuid,omitempty"`
	PartLabel string   `json:"partlabel,omitempty"`
	Content   string   `json:"content,omitempty"` // as blkid calls it
	Label     string   `json:"label,omitempty"`
	UUID      string   `json:"uuid,omitempty"`
	Readable  bool     `json:"readable"`
	Remarks   []string `json:"remarks,omitempty"`
	Error     string   `json:"error,omitempty"`

	Subvolumes []subvolumeLine `json:"subvolumes,omitempty"`
}

// subvolumeLine is a subvolume or snapshot of btrfs. Path is escaped.
type subvolumeLine struct {
	ID       uint64 `json:"id"`
	Path     string `json:"path"` // below the top level
	ReadOnly bool   `json:"read_only,omitempty"`
	Default  bool   `json:"default,omitempty"`
	Snapshot bool   `json:"snapshot,omitempty"`
	// SnapshotOf is the path of what it is a snapshot of, escaped; "" if that is gone.
	SnapshotOf string `json:"snapshot_of,omitempty"`
}

// mountLine is a filesystem in the guest's tree.
type mountLine struct {
	Path      string `json:"path"` // escaped
	Volume    string `json:"volume"`
	Subvolume uint64 `json:"subvolume,omitempty"`
}

type infoReport struct {
	Disks   []diskLine   `json:"disks"`
	Volumes []volumeLine `json:"volumes"`
	Guest   []mountLine  `json:"guest,omitempty"`
	Remarks []string     `json:"remarks,omitempty"` // about the guest's tree
}

func (a *app) infoCmd() *cobra.Command {
	var l *looking
	c := &cobra.Command{
		Use:   "info TARGET",
		Short: "Show what is on a disk, layer by layer",
		Long: `Show what is on a disk, layer by layer: the image and its snapshots, partitions,
LVM volumes, filesystems, what cannot be read and why, and how the guest puts it
all together.

` + targetHelp,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.info(c.Context(), names[0], l) },
	}
	l = lookFlags(c)
	return c
}

func (a *app) info(ctx context.Context, text string, l *looking) error {
	o := &opened{}
	defer o.close()
	t, err := parseTarget(text)
	if err != nil {
		return err
	}
	var r *sandbox.Reader
	if t.vm != "" && t.disk == "" && !t.ofBackup() && !t.pathed {
		r, err = a.openLiveDisks(ctx, o, t, l)
	} else {
		r, err = a.openDisks(ctx, o, t, l)
	}
	if err != nil {
		return err
	}
	report, err := describeDisks(ctx, r)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(report)
	}
	a.printInfo(report)
	return nil
}

// openLiveDisks opens all disks of a VM that is off, in one worker.
func (a *app) openLiveDisks(ctx context.Context, o *opened, t target, l *looking) (*sandbox.Reader, error) {
	if err := l.check(t); err != nil {
		return nil, err
	}
	c, v, err := a.liveVM(t)
	if err != nil {
		return nil, err
	}
	return a.startLive(ctx, o, c, t, v.SortedDisks()...)
}

// openDisks opens the disk that a TARGET names, in a worker.
func (a *app) openDisks(ctx context.Context, o *opened, t target, l *looking) (*sandbox.Reader, error) {
	switch {
	case t.history || t.pathed || t.image == "" && t.disk == "":
		return nil, usageError("that is no disk: name PATH.qcow2, PATH.raw, VM/DISK or VM/DISK@BACKUP, with no path in the guest")
	case t.image != "":
		return a.openReader(ctx, o, t, l)
	}
	if err := l.check(t); err != nil {
		return nil, err
	}
	if t.backup == "" {
		c, d, err := a.liveDisk(t)
		if err != nil {
			return nil, err
		}
		return a.startLive(ctx, o, c, t, d)
	}
	ctx, err := a.openStored(ctx, o, t)
	if err != nil {
		return nil, err
	}
	if o.whole == nil {
		return nil, fmt.Errorf("the backup has the files of disk %s, not an image of it (backup: image)", t.disk)
	}
	return a.startStored(ctx, o, t, l)
}

func describeDisks(ctx context.Context, r *sandbox.Reader) (*infoReport, error) {
	report := new(infoReport)
	for _, d := range r.Disks() {
		line, err := describeDisk(ctx, d)
		if err != nil {
			return nil, err
		}
		report.Disks = append(report.Disks, line)
	}
	volumes, err := r.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	readable, subvolumes := 0, 0
	for i := range volumes {
		report.Volumes = append(report.Volumes, describeVolume(ctx, r, volumes, i))
		if volumes[i].Readable {
			readable++
			subvolumes += len(report.Volumes[i].Subvolumes)
		}
	}
	if readable < 2 && subvolumes < 2 {
		return report, nil
	}
	if g, err := r.Guest(ctx, ""); err == nil && (readable > 1 || len(g.Mounts) > 1) { // no root is no news
		for _, m := range g.Mounts {
			line := mountLine{Path: escape.Bytes(m.Path), Subvolume: m.Subvolume}
			if m.Volume < len(volumes) {
				line.Volume = report.Volumes[m.Volume].Name
			}
			report.Guest = append(report.Guest, line)
		}
		report.Remarks = g.Info().Remarks
	}
	return report, nil
}

func describeDisk(ctx context.Context, d *sandbox.Disk) (diskLine, error) {
	i := d.Info()
	line := diskLine{
		Name: d.Name(), Format: i.Format, Version: i.Version, Size: d.Size(), ClusterSize: i.ClusterSize,
		Compression: i.Compression, Subclusters: i.ExtendedL2, Dirty: i.Dirty,
	}
	snapshots, err := d.Snapshots(ctx)
	if err != nil {
		return line, err
	}
	for _, s := range snapshots {
		line.Snapshots = append(line.Snapshots, snapshotLine{
			ID: escape.Bytes(s.ID), Name: escape.Bytes(s.Name), Time: time.Unix(s.Time.Sec, int64(s.Time.Nsec)),
		})
	}
	bitmaps, err := d.Bitmaps(ctx)
	for _, m := range bitmaps {
		line.Bitmaps = append(line.Bitmaps, bitmapLine{Name: escape.Bytes(m.Name), Granularity: m.Granularity, State: bitmapStates[m.State]})
	}
	return line, err
}

// bitmapStates are the words for states of dirty bitmaps.
var bitmapStates = map[sandbox.BitmapState]string{
	sandbox.BitmapConsistent: "consistent", sandbox.BitmapInUse: "in use", sandbox.BitmapInconsistent: "inconsistent",
}

// kindNames are the words for kinds of volume.
var kindNames = map[sandbox.VolumeKind]string{
	sandbox.WholeDisk: "disk", sandbox.Partition: "partition", sandbox.LogicalVolume: "logical volume",
}

func describeVolume(ctx context.Context, r *sandbox.Reader, all []sandbox.Volume, index int) volumeLine {
	v := &all[index]
	line := volumeLine{
		Name: escape.Line(v.Name), Kind: kindNames[v.Kind], Offset: v.Offset, Size: v.Size, Table: v.Table, Number: v.Number,
		PartType: escape.Line(v.PartType), PartUUID: escape.Line(v.PartUUID), PartLabel: escape.Bytes(v.PartLabel),
		Content: escape.Line(v.Content), Label: escape.Bytes(v.Label), UUID: escape.Line(v.UUID),
		Readable: v.Readable, Remarks: v.Remarks,
	}
	if v.Parent >= 0 {
		line.In = escape.Line(all[v.Parent].Name)
	}
	for _, m := range v.Members {
		line.On = append(line.On, escape.Line(all[m].Name))
	}
	if v.Err != nil {
		line.Error = v.Err.Error()
	}
	if !v.Readable {
		return line
	}
	fsys, err := r.Filesystem(ctx, v.Name)
	if err != nil {
		line.Readable, line.Error = false, err.Error()
		return line
	}
	line.Remarks = append(line.Remarks, fsys.Info().Remarks...)
	line.addSubvolumes(fsys)
	return line
}

// addSubvolumes lists the subvolumes of a btrfs.
func (v *volumeLine) addSubvolumes(fsys disk.Filesystem) {
	lister, ok := fsys.(disk.SubvolumeLister)
	if !ok {
		return
	}
	list, err := lister.Subvolumes()
	if err != nil {
		v.Remarks = append(v.Remarks, "its subvolumes cannot be listed: "+err.Error())
	}
	paths := make(map[[16]byte]string, len(list))
	for _, s := range list {
		paths[s.UUID] = cmp.Or(escape.Bytes(s.Path), "/")
	}
	for _, s := range list {
		line := subvolumeLine{ID: s.ID, Path: escape.Bytes(s.Path), ReadOnly: s.ReadOnly, Default: s.Default}
		if s.Origin != [16]byte{} {
			line.Snapshot, line.SnapshotOf = true, paths[s.Origin]
		}
		v.Subvolumes = append(v.Subvolumes, line)
	}
}

// text is the subvolume as one line.
func (s *subvolumeLine) text() string {
	return fmt.Sprintf("subvolume %d %s%s%s%s", s.ID, s.Path, ifText(s.ReadOnly, ", read-only"), ifText(s.Default, ", default"),
		ifText(s.Snapshot, ", snapshot of "+cmp.Or(s.SnapshotOf, "what is gone")))
}

// printInfo draws the layers, one below the other.
func (a *app) printInfo(report *infoReport) {
	for i, d := range report.Disks {
		if i > 0 {
			a.printf("\n")
		}
		a.printf("%s\n", d.text())
		for _, s := range d.Snapshots {
			a.printf("  snapshot %s %q of %s\n", s.ID, s.Name, s.Time.Format("2006-01-02 15:04"))
		}
		for _, m := range d.Bitmaps {
			a.printf("  dirty bitmap %q, a bit for %s, %s\n", m.Name, round.Bytes(m.Granularity), m.State)
		}
		for j := range report.Volumes {
			v := &report.Volumes[j]
			switch {
			case v.Kind == "disk" && v.Name == escape.Line(d.Name):
				a.printVolume("  ", v)
			case v.In == escape.Line(d.Name):
				a.printVolume("    ", v)
			}
		}
	}
	headed := false
	for j := range report.Volumes {
		if v := &report.Volumes[j]; v.Kind == kindNames[sandbox.LogicalVolume] {
			if !headed {
				a.printf("\nLVM\n")
				headed = true
			}
			a.printVolume("  ", v)
		}
	}
	if len(report.Guest) > 0 {
		a.printf("\nthe guest sees\n")
	}
	for _, m := range report.Guest {
		a.printf("  %-24s %s", m.Path, m.Volume)
		if m.Subvolume != 0 {
			a.printf(", subvolume %d", m.Subvolume)
		}
		a.printf("\n")
	}
	for _, text := range report.Remarks {
		a.printf("  note: %s\n", text)
	}
}

func (d *diskLine) text() string {
	text := fmt.Sprintf("%s: %s", escape.Line(d.Name), d.Format)
	if d.Version != 0 {
		text += fmt.Sprintf(" v%d, clusters of %s, %s", d.Version, round.Bytes(d.ClusterSize), d.Compression)
	}
	if d.Subclusters {
		text += ", subclusters"
	}
	if d.Dirty {
		text += ", not closed"
	}
	return text + ", " + round.Bytes(d.Size)
}

func (a *app) printVolume(indent string, v *volumeLine) {
	var text string
	switch {
	case v.Table != "":
		text = v.Table + " partition table"
	case v.Content != "":
		text = v.Content
	case v.Error == "":
		text = "nothing that is recognised"
	}
	if v.Label != "" {
		text += fmt.Sprintf(" %q", v.Label)
	}
	if v.UUID != "" {
		text += " " + v.UUID
	}
	if v.PartLabel != "" {
		text += fmt.Sprintf(" (partition %q)", v.PartLabel)
	}
	if len(v.On) > 1 || v.Kind == kindNames[sandbox.LogicalVolume] && len(v.On) > 0 {
		text += " on " + strings.Join(v.On, ", ")
	}
	a.printf("%s%-24s %10s  %s\n", indent, v.Name, round.Bytes(v.Size), strings.TrimSpace(text))
	for _, s := range v.Subvolumes {
		if s.Path != "" { // the top level is the volume itself
			a.printf("%s  %s\n", indent, s.text())
		}
	}
	for _, r := range v.Remarks {
		a.printf("%s  note: %s\n", indent, r)
	}
	if v.Error != "" {
		a.printf("%s  not read: %s\n", indent, v.Error)
	}
}

func ifText(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}

// hexText is how bytes that are no text are shown.
func hexText(b []byte) string { return "0x" + hex.EncodeToString(b) }
