//go:build linux

package unit

import "strings"

const documentation = "Documentation=https://github.com/drydock-vm/drydock\n"

// timerText is the timer. A night that was missed, since the host was off, is
// made up for at the next boot.
func timerText(e escaped) string {
	return `
[Unit]
Description=Nightly maintenance of the virtual machines
` + documentation + `
[Timer]
OnCalendar=` + e.schedule + `
RandomizedDelaySec=10min
Persistent=true

[Install]
WantedBy=timers.target
`
}

// serviceText is the round. It is ordered after the boot of the VMs as a whole
// and not after their units: it starts and stops these itself, and would wait
// for itself.
func serviceText(e escaped) string {
	return `
[Unit]
Description=Maintenance of the virtual machines
` + documentation + `Wants=network-online.target
After=network-online.target ` + Recover + ` multi-user.target

[Service]
Type=oneshot
ExecStart=` + e.command + ` run
# 3: done, with warnings that the report names.
SuccessExitStatus=3
# A round that is interrupted first starts the VMs that it has stopped.
TimeoutStopSec=10min
` + confinement(e)
}

// recoverText is the recovery. The VMs' units wait for it at boot, so that none
// starts on a disk that is about to be put back. It does not wait for the network,
// which a VM may be the router of, unless it has to start machines itself.
func recoverText(e escaped) string {
	network := ""
	if !e.onlyUnits {
		network = "Wants=network-online.target\nAfter=network-online.target\n"
	}
	before := ""
	if e.vmUnits != "" {
		before = "Before=" + e.vmUnits + "\n"
	}
	daemon := ""
	if e.libvirt { // those of libvirtd, and of where its daemons are split
		daemon = "After=libvirtd.service virtqemud.service virtqemud.socket virtproxyd.socket libvirtd.socket\n"
	}
	return `
[Unit]
Description=Put right what an interrupted round left of the virtual machines
` + documentation + `After=local-fs.target remote-fs.target
` + network + daemon + before + `
[Service]
Type=oneshot
ExecStart=` + e.command + ` recover
` + confinement(e) + `
[Install]
WantedBy=multi-user.target
`
}

// checkTimerText is the timer of the check, by day: far from the rounds of most, and
// when somebody is there to read it.
func checkTimerText() string {
	return `
[Unit]
Description=Daily look for missing backups of the virtual machines
` + documentation + `
[Timer]
OnCalendar=*-*-* 09:00:00
RandomizedDelaySec=10min
Persistent=true

[Install]
WantedBy=timers.target
`
}

// checkText is the check. That a backup is missing (exit code 3) is its failure, unlike
// that of a round: what watches for failed units sees it. It starts no machine, so it
// is always confined.
func checkText(e escaped) string {
	return `
[Unit]
Description=Look for missing backups of the virtual machines
` + documentation + `Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=` + e.command + ` status
` + confined()
}

// builderText is the drop-in of the builder's unit. "+" has it run by root,
// whoever the unit runs QEMU as.
func builderText(e escaped) string {
	return `
[Service]
# Six days of seven no build is due, and the unit is skipped.
ExecCondition=+` + e.command + ` due ` + e.builderVM + `
ExecStartPre=+` + e.command + ` build prepare ` + e.builderVM + `
`
}

// confinement is what drydock's services are kept from.
//
// It leaves out what the work needs: namespaces and a seccomp filter of its own
// (RestrictNamespaces=, SystemCallFilter=) are how drydock confines the worker
// that parses guest disks; disks and repository may lie in any folder or on any
// block device (ProtectHome=, PrivateTmp=, PrivateDevices=, and ProtectClock=,
// which limits devices too).
func confinement(e escaped) string {
	if !e.onlyUnits {
		return `# The machines that drydock starts go on when it has ended. They would be
# confined as it is, so it is not.
KillMode=process
`
	}
	return confined()
}

func confined() string {
	return strings.Join([]string{
		"KillMode=mixed",
		"UMask=0077",
		"NoNewPrivileges=yes",
		"CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_TIME CAP_SYS_BOOT CAP_SYS_PACCT CAP_SYS_TTY_CONFIG",
		"CapabilityBoundingSet=~CAP_SYSLOG CAP_WAKE_ALARM CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_NET_ADMIN CAP_NET_RAW",
		"LockPersonality=yes",
		"MemoryDenyWriteExecute=yes",
		"ProtectControlGroups=yes",
		"ProtectHostname=yes",
		"ProtectKernelLogs=yes",
		"ProtectKernelModules=yes",
		"ProtectKernelTunables=yes",
		"ProtectSystem=full",
		"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
		"RestrictRealtime=yes",
		"RestrictSUIDSGID=yes",
		"SystemCallArchitectures=native",
		"",
	}, "\n")
}
