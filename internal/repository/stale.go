package repository

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// isStale reports whether nobody holds a lock any more.
//
// Restic takes a lock for stale after 30 minutes without a refresh, and one of
// its own host when the process is dead. Here a living process of this host
// keeps its lock: it may be stopped, or wait for a disk, and go on writing. The
// number of a dead process is given out again some day: our own locks say which
// process they are of, and of restic's, a process that began after an old lock
// was written is not the one that wrote it. What this process itself holds it
// knows.
func isStale(info LockInfo, hostname string, held bool, now time.Time) bool {
	old := now.Round(0).Sub(info.Time.Round(0)) > staleAge
	if info.Hostname == "" || info.Hostname != hostname {
		return old
	}
	me := thisProcess()
	if p := info.Process; p != nil && (p.Machine != me.Machine || p.Namespace != me.Namespace) {
		return old // another host of this name, or a container: the number says nothing here
	}
	if !processExists(info.PID) {
		return true
	}
	if p := info.Process; p != nil && info.PID != os.Getpid() {
		start, err := processStart(info.PID)
		return err == nil && (p.Boot != me.Boot || p.Start != start)
	}
	if !old {
		return false
	}
	if info.PID == os.Getpid() {
		return !held
	}
	began, err := processBegan(info.PID)
	return err == nil && began.After(info.Time)
}

// processIdentity tells a process from all others that ever have its number.
type processIdentity struct {
	Machine   string `json:"machine"`    // derived from machine-id(5)
	Boot      string `json:"boot"`       // /proc/sys/kernel/random/boot_id
	Namespace string `json:"namespace"`  // of process numbers
	Start     int64  `json:"start_tick"` // clock ticks from boot to its start
}

// thisProcess is the identity of this process. What cannot be told is empty, for
// all processes of this host alike.
var thisProcess = sync.OnceValue(func() *processIdentity {
	p := new(processIdentity)
	if id, err := os.ReadFile("/etc/machine-id"); err == nil {
		// The ID itself is not to leave the host: machine-id(5).
		p.Machine = Hash(append([]byte("drydock lock "), bytes.TrimSpace(id)...)).Short()
	}
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		p.Boot = string(bytes.TrimSpace(boot))
	}
	p.Namespace, _ = os.Readlink("/proc/self/ns/pid")
	p.Start, _ = processStart(os.Getpid())
	return p
})

// processExists reports whether there is a living process of that number, which
// this process need not be allowed to touch. One that has ended and that its
// parent has not asked after is dead: it writes nothing any more.
func processExists(pid int) bool {
	if pid <= 0 { // kill would reach groups of processes
		return false
	}
	if err := unix.Kill(pid, 0); err != nil {
		return errors.Is(err, unix.EPERM)
	}
	fields, err := processStat(pid)
	return err != nil || len(fields) == 0 || string(fields[0]) != "Z"
}

// processStat returns the fields of /proc/PID/stat from the third, the state, on.
func processStat(pid int) ([][]byte, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// The second is the name, in parentheses, and can hold any of them.
	return bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]), nil
}

const (
	// clockTicks is USER_HZ, which is 100 on every architecture that Go runs
	// Linux on.
	clockTicks = 100
	// statStart is the place of starttime in what processStat returns: it is
	// field 22 of proc(5).
	statStart = 22 - 3
)

// processStart returns the clock ticks from boot to the start of a process.
func processStart(pid int) (int64, error) {
	fields, err := processStat(pid)
	if err != nil {
		return 0, err
	}
	if len(fields) <= statStart {
		return 0, errors.New("/proc has no start time of the process")
	}
	return strconv.ParseInt(string(fields[statStart]), 10, 64)
}

// processBegan returns when a process began, by the present clock.
func processBegan(pid int) (time.Time, error) {
	ticks, err := processStart(pid)
	if err != nil {
		return time.Time{}, err
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return time.Time{}, err
	}
	sinceBoot := time.Duration(ticks) * (time.Second / clockTicks)
	return time.Now().Round(0).Add(sinceBoot - time.Duration(boot.Nano())), nil
}
