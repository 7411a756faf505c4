// Package config reads /etc/drydock/drydock.yaml: which virtual machines there
// are, where their disks lie, and what a round does with them.
//
// [Load] and [Parse] are strict. A key that nobody knows, a value of another
// kind, a duration that Go does not read, two VMs on one disk: each is an
// [Error] with file, line, column, the line itself and the likely fix, and all
// of them are reported at once. What they return is complete: every default is
// filled in ([Config.Show] prints them), and every path is absolute.
//
// The structs are the documentation of the file: [Schema] is generated from
// them. They stop at the command line: no other package takes them.
package config

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// DefaultPath is where drydock looks for its configuration.
const DefaultPath = "/etc/drydock/drydock.yaml"

// maxFileSize bounds a configuration file, in bytes. 200 VMs with ten disks
// each take less than one MiB.
const maxFileSize = 16 << 20

// Config is the whole file.
type Config struct {
	// State is the folder that drydock keeps its journal, its history and the
	// image store in.
	State string `yaml:"state" jsonschema:"default=/var/lib/drydock"`
	// Runtime is the folder for sockets and PID files; it may be lost at boot.
	Runtime string `yaml:"runtime" jsonschema:"default=/run/drydock"`
	// Repository is where the backups go.
	Repository Repository `yaml:"repository" jsonschema:"required"`
	// Copies are further repositories, to which each round brings the backups.
	Copies []Copy `yaml:"copies,omitempty"`
	// Schedule is when the rounds start, as OnCalendar= of a systemd timer
	// writes it (systemd.time(7)).
	Schedule string `yaml:"schedule" jsonschema:"default=*-*-* 02:30:00"`
	// Retain says which backups are kept, of VMs that have no retain of their
	// own. Without it all are.
	Retain *Retain `yaml:"retain,omitempty"`
	// MaxAge is how old the newest backup may become before it is an alarm, of
	// VMs that have no max_age of their own.
	MaxAge Duration `yaml:"max_age,omitempty"`
	// Prune is when the space of removed backups is given back. By default it
	// is every week, if any VM or copy has a retain with a key in it.
	Prune *Prune `yaml:"prune,omitempty"`
	// Verify is how rounds prove that backups can be read back.
	Verify Verify `yaml:"verify"`
	// Sandbox is the confinement of the process that parses guest disks.
	Sandbox Sandbox `yaml:"sandbox"`
	// Writer is the machine that writes the files of a new disk image with XFS or
	// btrfs: this host does not mount it.
	Writer Writer `yaml:"writer"`
	// DiskFolders are the folders from which declared backing files may be
	// opened.
	DiskFolders []string `yaml:"disk_folders"`
	// VMs are the virtual machines, by name.
	VMs map[string]*VM `yaml:"vms" jsonschema:"required"`
	// Images are the settings of images in the image store, by name.
	Images map[string]*Image `yaml:"images"`
}

// Repository is a restic repository.
type Repository struct {
	// Path is where the repository is, as restic writes it: a folder,
	// sftp:USER@HOST:/PATH, s3:https://HOST/BUCKET/PREFIX or
	// rest:https://HOST:PORT/PATH/. The first backup creates it.
	Path string `yaml:"path" jsonschema:"required"`
	// PasswordFile holds the repository's password; its default is
	// STATE/repository.key, and the first backup makes one up.
	PasswordFile string `yaml:"password_file"`
	// CredentialsFile holds the login at the server, in the variables that
	// restic has for it, one NAME=VALUE a line; its default is the systemd
	// credential repository.credentials, where there is one.
	CredentialsFile string `yaml:"credentials_file,omitempty"`
	// CAFile holds certificates that are trusted beside those of the host, for
	// s3: and rest:.
	CAFile string `yaml:"ca_file,omitempty"`
	// Connections is how many operations on a server run at once.
	Connections int `yaml:"connections" jsonschema:"default=5,minimum=1,maximum=100"`
	// Timeout is how long a server may be silent.
	Timeout Duration `yaml:"timeout" jsonschema:"default=2m"`
	// Compression is how hard what is stored is compressed, as restic names it.
	Compression string `yaml:"compression" jsonschema:"default=fastest,enum=off,enum=fastest,enum=auto,enum=better,enum=max"`
	// ECC is how much parity is stored with each pack, in percent of its size, to
	// repair damage of the storage with; 0 is none. Not for rest:.
	ECC int `yaml:"ecc" jsonschema:"default=0,minimum=0,maximum=50"`
	// SFTP is how to log in to a location of sftp:.
	SFTP *SFTP `yaml:"sftp,omitempty"`
	// S3 is what a location of s3: does not say.
	S3 *S3 `yaml:"s3,omitempty"`
}

// Copy is a further repository. It has the keys of one.
type Copy struct {
	Repository `yaml:",inline"`
	// Name is what the command line calls the place, beside its path.
	Name string `yaml:"name,omitempty"`
	// Retain says which backups are kept there, of all VMs, in place of their own;
	// "{}" keeps all.
	Retain *Retain `yaml:"retain,omitempty"`
	// MaxAge is how old the newest backup of a VM may become there before it is an
	// alarm, in place of the VM's own max_age; "0s" is no limit.
	MaxAge *Duration `yaml:"max_age,omitempty"`
	// Verify is how rounds prove that the backups there can be read back.
	Verify CopyProof `yaml:"verify"`
}

// CopyProof is how rounds prove that the backups at a further repository can be
// read back. Reading there may be slow, and paid for.
type CopyProof struct {
	// Mode is how much is read, as in Verify.Mode, which is the default.
	Mode string `yaml:"mode" jsonschema:"enum=off,enum=quick,enum=sample,enum=full"`
	// Every is the time from one proof to the next.
	Every Duration `yaml:"every" jsonschema:"default=168h"`
	// Percent is the share of the content that a sample reads for each day since
	// the last: with 1, all of it is read within 100 days.
	Percent int `yaml:"percent" jsonschema:"default=1,minimum=1,maximum=100"`
}

// SFTP is how to log in to an SSH server.
type SFTP struct {
	// IdentityFile is the private key; without it those in ~/.ssh and the
	// agent's are tried.
	IdentityFile string `yaml:"identity_file,omitempty"`
	// KnownHosts is the file of known host keys; without it ~/.ssh/known_hosts
	// and /etc/ssh/ssh_known_hosts are.
	KnownHosts string `yaml:"known_hosts,omitempty"`
}

// The values of [S3.BucketLookup].
const (
	LookupAuto = "auto"
	LookupPath = "path"
	LookupDNS  = "dns"
)

// S3 is what a location of s3: does not say.
type S3 struct {
	// Region is the bucket's region; without it the server is asked.
	Region string `yaml:"region,omitempty"`
	// BucketLookup says whether a request names the bucket in the path or in
	// the host's name.
	BucketLookup string `yaml:"bucket_lookup" jsonschema:"default=auto,enum=auto,enum=path,enum=dns"`
	// ObjectLock keeps what is uploaded from being destroyed, in a bucket that
	// was made for it.
	ObjectLock *ObjectLock `yaml:"object_lock,omitempty"`
}

// The values of [ObjectLock.Mode].
const (
	LockGovernance = "governance"
	LockCompliance = "compliance"
)

// ObjectLock is a retention of S3.
type ObjectLock struct {
	// Mode says who may shorten it: governance whoever has the right to,
	// compliance nobody.
	Mode string `yaml:"mode" jsonschema:"required,enum=governance,enum=compliance"`
	// Days is how long it is, counted from the upload, or from the last renewal:
	// rounds renew it whenever a third has passed.
	Days int `yaml:"days" jsonschema:"required,minimum=1,maximum=36500"`
}

// The values of [Verify.Mode].
const (
	VerifyOff    = "off"
	VerifyQuick  = "quick"
	VerifySample = "sample"
	VerifyFull   = "full"
)

// Verify is how rounds prove that backups can be read back.
type Verify struct {
	// Mode is how much is read: the structure (quick), a share of the content as
	// well, each day another (sample), all of it (full), or nothing (off).
	Mode string `yaml:"mode" jsonschema:"default=sample,enum=off,enum=quick,enum=sample,enum=full"`
	// Every is the time from one proof to the next.
	Every Duration `yaml:"every" jsonschema:"default=24h"`
	// Percent is the share of the content that a sample reads for each day: with
	// 4, all of it is read within 25 days.
	Percent int `yaml:"percent" jsonschema:"default=4,minimum=1,maximum=100"`
	// Boot has rounds start the VMs from their newest backups, apart from the world.
	Boot *BootProof `yaml:"boot,omitempty"`
}

// Sandbox is the confinement of the disk reader worker.
type Sandbox struct {
	// AllowWithout names the layers of the confinement that drydock may run
	// without where this host's kernel lacks them.
	AllowWithout []Layer `yaml:"allow_without"`
	// Memory is what the worker may use at most.
	Memory Size `yaml:"memory" jsonschema:"default=256MiB"`
}

// Layer is one layer of the worker's confinement.
type Layer string

// The layers that a host may lack, as package sandbox names its measures.
const (
	LayerNamespaces Layer = "namespaces"
	LayerRlimits    Layer = "rlimits"
	LayerPrivileges Layer = "privileges"
	LayerNoNewPrivs Layer = "no-new-privs"
	LayerLandlock   Layer = "landlock"
	LayerSeccomp    Layer = "seccomp"
)

// Layers are all layers, in the order in which the schema lists them.
func Layers() []Layer {
	return []Layer{LayerNamespaces, LayerRlimits, LayerPrivileges, LayerNoNewPrivs, LayerLandlock, LayerSeccomp}
}

// The values of [Writer.Accelerator].
const (
	AcceleratorAuto = "auto"
	AcceleratorKVM  = "kvm"
	AcceleratorTCG  = "tcg"
)

// Writer is the machine that writes into new filesystems.
type Writer struct {
	// Kernel is what it boots; without this key it is the kernel of this host, or the
	// newest in /boot.
	Kernel string `yaml:"kernel,omitempty"`
	// Modules is the folder of that kernel's modules, where they are not in
	// /lib/modules.
	Modules string `yaml:"modules,omitempty"`
	// Accelerator is QEMU's: auto tries KVM for ten seconds, and takes tcg where no
	// guest comes up in it.
	Accelerator string `yaml:"accelerator" jsonschema:"default=auto,enum=auto,enum=kvm,enum=tcg"`
}

// The drivers of [VM.Driver].
const (
	DriverQEMU    = "qemu"
	DriverSystemd = "systemd"
	DriverLibvirt = "libvirt"
)

// The values of [VM.OnShutdownTimeout].
const (
	// TimeoutSkip leaves a VM that does not shut down as it is.
	TimeoutSkip = "skip"
	// TimeoutForce takes its power away.
	TimeoutForce = "force"
)

// VM is one virtual machine.
type VM struct {
	// Name is the VM's key in Config.VMs.
	Name string `yaml:"-"`

	// Driver says who runs the machine: drydock itself (qemu), systemd, or libvirt.
	Driver string `yaml:"driver" jsonschema:"required,enum=qemu,enum=systemd,enum=libvirt"`
	// Command is the command line that starts the machine, for driver qemu.
	Command []string `yaml:"command,omitempty"`
	// Unit is the unit that is the machine, for driver systemd.
	Unit string `yaml:"unit,omitempty"`
	// Domain is the domain that is the machine, for driver libvirt.
	Domain string `yaml:"domain,omitempty"`
	// Socket is that of libvirt's daemon, where it is not /run/libvirt/libvirt-sock.
	Socket string `yaml:"socket,omitempty"`
	// QMP is the machine's QMP socket, where a unit has one.
	QMP string `yaml:"qmp,omitempty"`
	// Console is the file that a unit's or a domain's serial console is written to.
	Console string `yaml:"console,omitempty"`
	// Order is the place in a round: lower comes first, and the name decides
	// between equals.
	Order int `yaml:"order,omitempty"`
	// ShutdownTimeout is how long the guest may take to power off.
	ShutdownTimeout Duration `yaml:"shutdown_timeout" jsonschema:"default=2m"`
	// OnShutdownTimeout says what comes after that.
	OnShutdownTimeout string `yaml:"on_shutdown_timeout" jsonschema:"default=skip,enum=skip,enum=force"`
	// Snapshot is the kind of snapshot that backups are read from.
	Snapshot string `yaml:"snapshot" jsonschema:"default=auto,enum=auto,enum=reflink,enum=qcow2,enum=none"`
	// Health decides whether a start went well.
	Health Health `yaml:"health"`
	// Boot is how the VM is started from a backup.
	Boot *Boot `yaml:"boot,omitempty"`
	// Retain says which backups of this VM are kept, in place of Config.Retain;
	// "{}" keeps all.
	Retain *Retain `yaml:"retain,omitempty"`
	// MaxAge is how old this VM's newest backup may become before it is an alarm.
	MaxAge *Duration `yaml:"max_age,omitempty"`
	// Builder makes this VM the one that builds images.
	Builder *Builder `yaml:"builder,omitempty"`
	// Disks are the machine's disks, by name.
	Disks map[string]*Disk `yaml:"disks" jsonschema:"required"`
	// Sinks are other backup programs that get the frozen disks too, by name.
	Sinks map[string]*Sink `yaml:"sinks,omitempty"`
}

// Sink is another backup program. It has exactly one of Borg and Command.
type Sink struct {
	// Name is the sink's key in VM.Sinks.
	Name string `yaml:"-"`

	// Borg stores the files of the disks with borg create.
	Borg *Borg `yaml:"borg,omitempty"`
	// Command is the command line of any other program; no shell looks at it.
	// {vm}, {time} and, unless the input is a folder, {disk} are replaced in each
	// argument.
	Command []string `yaml:"command,omitempty"`
	// Input is what Command gets: a folder to work in, with one folder for each
	// disk; or on standard input, once for each disk, a tar of its files or all of
	// its bytes.
	Input string `yaml:"input,omitempty" jsonschema:"enum=folder,enum=tar,enum=raw"`
	// Disks are the names of the disks that it gets; without this key, of all
	// whose backup is not off.
	Disks []string `yaml:"disks,omitempty"`
	// Timeout ends a program that takes longer.
	Timeout Duration `yaml:"timeout" jsonschema:"default=12h"`
}

// Borg is a repository of borg's, made with borg init.
type Borg struct {
	// Repository is a folder, or ssh://USER@HOST:PORT/PATH.
	Repository string `yaml:"repository" jsonschema:"required"`
	// PassphraseFile holds the passphrase, if the repository has one.
	PassphraseFile string `yaml:"passphrase_file,omitempty"`
	// Args are further arguments of borg create.
	Args []string `yaml:"args,omitempty"`
}

// Health is how a VM is judged from outside after a start.
type Health struct {
	// Timeout is when the probes must have passed, counted from the start.
	Timeout Duration `yaml:"timeout" jsonschema:"default=2m"`
	// Interval is the pause between two tries.
	Interval Duration `yaml:"interval" jsonschema:"default=1s"`
	// Probes must all pass. Without this key the one probe is "active: true".
	Probes []Probe `yaml:"probes"`
}

// Probe is one question. It has exactly one of TCP, HTTP, Console and Active.
type Probe struct {
	// TCP is a HOST:PORT that must accept a connection.
	TCP string `yaml:"tcp,omitempty"`
	// HTTP is a URL that must answer.
	HTTP string `yaml:"http,omitempty"`
	// Status is the status that HTTP must answer with; by default any from
	// 200 to 299.
	Status int `yaml:"status,omitempty" jsonschema:"minimum=100,maximum=599"`
	// Text must occur in what HTTP answers.
	Text string `yaml:"text,omitempty"`
	// Console is a regular expression (RE2) that must match what the console
	// has printed since the start.
	Console string `yaml:"console,omitempty"`
	// Active asks whether the process runs, or the unit is active.
	Active bool `yaml:"active,omitempty"`
}

// Builder is what makes a VM the builder VM.
type Builder struct {
	// Every is how often images are built, if nothing changes meanwhile.
	Every Duration `yaml:"every" jsonschema:"default=168h"`
	// Spec is a folder with one folder for each image, a Containerfile in it.
	Spec string `yaml:"spec" jsonschema:"required"`
	// SpecDisk is the raw disk that drydock writes Spec to, and that the VM
	// reads.
	SpecDisk string `yaml:"spec_disk" jsonschema:"required"`
	// Output names the disk of this VM that carries manifest and images.
	Output string `yaml:"output" jsonschema:"required"`
	// Images are the names of the images that it builds.
	Images []string `yaml:"images" jsonschema:"required"`
}

// The values of [Disk.Format] and [Backing.Format].
const (
	FormatRaw   = "raw"
	FormatQCOW2 = "qcow2"
)

// The values of [Disk.Backup].
const (
	BackupFiles = "files"
	BackupImage = "image"
	BackupOff   = "off"
)

// The values of [Disk.FreeSpace].
const (
	FreeSpaceSkip = "skip"
	FreeSpaceKeep = "keep"
)

// The values of [Disk.BtrfsSnapshots].
const (
	BtrfsSnapshotsSkip = "skip"
	BtrfsSnapshotsKeep = "keep"
)

// Disk is one disk of a VM.
type Disk struct {
	// Name is the disk's key in VM.Disks.
	Name string `yaml:"-"`

	// Path is the image file. No two disks may share one.
	Path string `yaml:"path" jsonschema:"required"`
	// Format is declared and never probed.
	Format string `yaml:"format" jsonschema:"required,enum=raw,enum=qcow2"`
	// Mount is where the guest mounts the disk's filesystem.
	Mount string `yaml:"mount,omitempty"`
	// Partition is the number, from 1, of the partition that the filesystem
	// is on; without it the filesystem fills the whole disk.
	Partition int `yaml:"partition,omitempty" jsonschema:"minimum=1,maximum=128"`
	// Volume is the LVM logical volume that the filesystem is on, as
	// GROUP/NAME, for a disk that is a physical volume.
	Volume string `yaml:"volume,omitempty"`
	// Image names the image whose versions replace this whole disk. It
	// declares that the disk carries no state: whatever a guest has written
	// to it is gone after an update. A disk without this key is never
	// replaced.
	Image string `yaml:"image,omitempty"`
	// Backup says what is backed up: the disk's files, the whole disk as an
	// image, or nothing.
	Backup string `yaml:"backup" jsonschema:"default=files,enum=files,enum=image,enum=off"`
	// FreeSpace says whether an image has what the guest's filesystems have
	// freed, and swap space. The default is skip: both are zeros in it.
	FreeSpace string `yaml:"free_space,omitempty" jsonschema:"enum=skip,enum=keep"`
	// DirtyBitmap has QEMU record in a qcow2 disk what the guest writes, so
	// that the next image of it need not be read in whole.
	DirtyBitmap bool `yaml:"dirty_bitmap,omitempty"`
	// Include limits the backup to what these patterns match. Patterns are
	// written as in .gitignore, of paths in this disk's filesystem: "/" in
	// front or in the middle anchors one at its root, "/" at the end makes it
	// one of folders, "*", "?" and "[a-z]" match within a name, "**" matches
	// any number of names, and "!" in front takes back what patterns before
	// it matched.
	Include []string `yaml:"include,omitempty"`
	// Exclude leaves out what these patterns match; it wins over Include.
	// What each rule has left out is counted in the round's report.
	Exclude []string `yaml:"exclude,omitempty"`
	// ExcludeCaches leaves out what is in folders with a valid CACHEDIR.TAG.
	ExcludeCaches bool `yaml:"exclude_caches,omitempty"`
	// ExcludeNoDump leaves out files and folders that were given the "nodump"
	// flag with "chattr +d".
	ExcludeNoDump bool `yaml:"exclude_nodump,omitempty"`
	// ExcludeLargerThan leaves out files that are larger; 0 is no limit.
	ExcludeLargerThan Size `yaml:"exclude_larger_than,omitempty"`
	// BtrfsSnapshots says whether the files of read-only snapshots are backed up whose
	// original is in use, and in the backup. The default is skip: there may be hundreds, as snapper makes
	// them, each with all files. What was left out is counted in the round's report.
	BtrfsSnapshots string `yaml:"btrfs_snapshots,omitempty" jsonschema:"enum=skip,enum=keep"`
	// Backing is the backing file of a qcow2 disk. It is opened because it is
	// named here, never because the disk names it.
	Backing *Backing `yaml:"backing,omitempty"`
}

// Backing is a declared backing file, in one of Config.DiskFolders.
type Backing struct {
	// Path is the backing file.
	Path string `yaml:"path" jsonschema:"required"`
	// Format is declared and never probed.
	Format string `yaml:"format" jsonschema:"required,enum=raw,enum=qcow2"`
}

// Image is the settings of one image in the image store.
type Image struct {
	// Keep is how many versions are kept beside those in use.
	Keep int `yaml:"keep" jsonschema:"default=3,minimum=1"`
}

// Load reads and checks the file at path. Relative paths in it start at its
// folder. What is wrong with its content is returned as [Error]s, joined.
func Load(path string) (*Config, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the configuration: %w", err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w (drydock config init writes a sample)", err)
	}
	if info.Size() > maxFileSize {
		return nil, fmt.Errorf("read the configuration: %s has %d bytes, at most %d are read", abs, info.Size(), maxFileSize)
	}
	data, err := os.ReadFile(abs)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return parse(path, filepath.Dir(abs), data)
}

// Parse checks data, the content of a file called name: the name stands in
// errors, and relative paths in data start at its folder. Nothing is read from
// disk.
func Parse(name string, data []byte) (*Config, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("find the configuration: %w", err)
	}
	return parse(name, filepath.Dir(abs), data)
}

// SortedVMs returns the VMs in the order of a round: by Order, then by name.
func (c *Config) SortedVMs() []*VM {
	vms := make([]*VM, 0, len(c.VMs))
	for _, vm := range c.VMs {
		vms = append(vms, vm)
	}
	slices.SortFunc(vms, func(a, b *VM) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
	})
	return vms
}

// BuilderVM returns the VM that builds images, or nil.
func (c *Config) BuilderVM() *VM {
	for _, vm := range c.VMs {
		if vm.Builder != nil {
			return vm
		}
	}
	return nil
}

// SortedDisks returns the disks by mount point, then by name: a disk comes
// after the one that it is mounted on, and disks without a mount point come
// first.
func (v *VM) SortedDisks() []*Disk {
	disks := make([]*Disk, 0, len(v.Disks))
	for _, d := range v.Disks {
		disks = append(disks, d)
	}
	slices.SortFunc(disks, func(a, b *Disk) int {
		return cmp.Or(cmp.Compare(a.Mount, b.Mount), cmp.Compare(a.Name, b.Name))
	})
	return disks
}
