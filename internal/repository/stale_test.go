package repository

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestIsStale(t *testing.T) {
	living := exec.Command("sleep", "600")
	if err := living.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = living.Process.Kill()
		_ = living.Wait() // it was killed
	})
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	// One that has ended, and whose parent has not waited for it.
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = zombie.Wait() })
	for deadline := time.Now().Add(10 * time.Second); processExists(zombie.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process that has ended counts as living")
		}
	}
	start, err := processStart(living.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	// identity is that of the living process, changed.
	identity := func(change func(*processIdentity)) *processIdentity {
		p := *thisProcess()
		p.Start = start
		change(&p)
		return &p
	}
	same := identity(func(*processIdentity) {})
	now := time.Now()
	for _, test := range []struct {
		name    string
		pid     int
		process *processIdentity
		in      time.Duration
		want    bool
	}{
		{"the same", living.Process.Pid, same, time.Minute, false},
		{"the same, not refreshed for a day", living.Process.Pid, same, 24 * time.Hour, false},
		{"number given out again", living.Process.Pid, identity(func(p *processIdentity) { p.Start-- }), time.Second, true},
		{"number given out again after a boot", living.Process.Pid, identity(func(p *processIdentity) { p.Boot = "0" }), time.Second, true},
		{"dead", dead.Process.Pid, same, time.Second, true},
		{"a container's", dead.Process.Pid, identity(func(p *processIdentity) { p.Namespace = "pid:[1]" }), time.Minute, false},
		{"a container's, old", living.Process.Pid, identity(func(p *processIdentity) { p.Namespace = "pid:[1]" }), time.Hour, true},
		{"another machine of this name", dead.Process.Pid, identity(func(p *processIdentity) { p.Machine = "0" }), time.Minute, false},
	} {
		info := LockInfo{Time: now, Hostname: "me", PID: test.pid, Process: test.process}
		if got := isStale(info, "me", false, now.Add(test.in)); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	for _, test := range []struct {
		name string
		host string
		pid  int
		age  time.Duration // of the lock
		held bool
		in   time.Duration // when it is looked at
		want bool
	}{
		{"other host, young", "other", dead.Process.Pid, 29 * time.Minute, false, 0, false},
		{"other host, old", "other", living.Process.Pid, 31 * time.Minute, false, 0, true},
		{"other host, from the future", "other", 1, -time.Hour, false, 0, false},
		{"dead", "me", dead.Process.Pid, 0, false, 0, true},
		{"zombie", "me", zombie.Process.Pid, 0, false, 0, true},
		{"no process", "me", 0, 0, false, 0, true},
		{"a group of processes", "me", -1, 0, false, 0, true},
		{"living, young", "me", living.Process.Pid, time.Minute, false, 0, false},
		{"living, not refreshed", "me", living.Process.Pid, -time.Second, false, 24 * time.Hour, false},
		{"living, number given out again", "me", living.Process.Pid, time.Hour, false, 0, true},
		{"not ours to touch", "me", 1, -time.Second, false, time.Hour, false},
		{"this process", "me", os.Getpid(), 0, true, time.Hour, false},
		{"this process, left behind", "me", os.Getpid(), 0, false, time.Hour, true},
		{"this process, just made", "me", os.Getpid(), 0, false, time.Minute, false},
	} {
		info := LockInfo{Time: now.Add(-test.age), Hostname: test.host, PID: test.pid}
		if got := isStale(info, "me", test.held, now.Add(test.in)); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestProcessBegan(t *testing.T) {
	before := time.Now()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	began, err := processBegan(cmd.Process.Pid)
	if err != nil || began.Before(before.Add(-time.Second)) || began.After(time.Now().Add(time.Second)) {
		t.Errorf("began %v, %v; it was about %v", began, err, before)
	}
}
