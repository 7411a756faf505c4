package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
)

// Retain says which backups of a VM are kept. A backup is kept if any of the keys
// keeps it; without any key all are. Each counts as the option of restic forget
// with its name does, which begins with --keep-. Backups that are pinned, and the
// last good one, are always kept.
type Retain struct {
	// Last is how many of the newest backups are kept.
	Last int `yaml:"last,omitempty" jsonschema:"minimum=0"`
	// Hourly is for how many hours that have a backup the newest is kept.
	Hourly int `yaml:"hourly,omitempty" jsonschema:"minimum=0"`
	// Daily is for how many days.
	Daily int `yaml:"daily,omitempty" jsonschema:"minimum=0"`
	// Weekly is for how many weeks, from Monday on.
	Weekly int `yaml:"weekly,omitempty" jsonschema:"minimum=0"`
	// Monthly is for how many months.
	Monthly int `yaml:"monthly,omitempty" jsonschema:"minimum=0"`
	// Yearly is for how many years.
	Yearly int `yaml:"yearly,omitempty" jsonschema:"minimum=0"`
	// Within keeps all that were made so long before the newest: "30d", "1y6m".
	Within Span `yaml:"within,omitempty"`
}

// Prune is when restic prune gives back the space of removed backups.
type Prune struct {
	// Every is the time from one prune to the next; 0s is never.
	Every Duration `yaml:"every" jsonschema:"default=168h"`
}

// Span is a length of time by the calendar, in years, months, days and hours, as
// restic writes it: "30d", "1y6m".
type Span string

// spanForm is what Span can be. Six digits of hours are a century.
var spanForm = regexp.MustCompile(`^(?:([0-9]{1,6})y)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?$`)

// UnmarshalText reads a span.
func (s *Span) UnmarshalText(text []byte) error {
	if len(text) == 0 || !spanForm.Match(text) {
		return &badValue{problem: fmt.Sprintf("%q is not a span of time", text), hint: `write it like "48h", "30d", "6m" (months) or "1y6m"`}
	}
	*s = Span(text)
	return nil
}

// Parts returns the numbers of the span, which are 0 where it has none.
func (s Span) Parts() (years, months, days, hours int) {
	m := spanForm.FindStringSubmatch(string(s))
	if m == nil {
		return 0, 0, 0, 0
	}
	n := func(i int) int { v, _ := strconv.Atoi(m[i]); return v } // at most six digits, or none
	return n(1), n(2), n(3), n(4)
}

// completeRetain gives the VMs the defaults of all VMs.
func (c *Config) completeRetain() {
	retains := false
	for _, vm := range c.VMs {
		if vm.Retain == nil && c.Retain != nil {
			own := *c.Retain
			vm.Retain = &own
		}
		if vm.MaxAge == nil && c.MaxAge != 0 && vm.BackedUp() {
			own := c.MaxAge
			vm.MaxAge = &own
		}
		retains = retains || vm.Retain != nil && *vm.Retain != Retain{}
	}
	for _, p := range c.Copies {
		retains = retains || p.Retain != nil && *p.Retain != Retain{}
	}
	if retains && c.Prune == nil {
		c.Prune = &Prune{}
		setDefaults(reflect.ValueOf(c.Prune).Elem())
	}
}

// BackedUp reports whether any disk of the VM is.
func (v *VM) BackedUp() bool {
	for _, d := range v.Disks {
		if d.Backup != BackupOff {
			return true
		}
	}
	return false
}

// checkMaxAge finds ages that nothing could keep to, or that mean nothing.
func (r *reader) checkMaxAge(c *Config) {
	const noLimit = "without this key no backup is too old"
	if _, given := r.at["max_age"]; given && c.MaxAge == 0 {
		r.problem("max_age", "must be longer than 0s", noLimit)
	}
	for _, name := range sortedKeys(c.VMs) {
		vm, key := c.VMs[name], "vms."+name+".max_age"
		switch {
		case vm.MaxAge == nil:
		case !vm.BackedUp():
			r.problem(key, "has no meaning where no disk is backed up", "")
		case *vm.MaxAge == 0:
			r.problem(key, "must be longer than 0s", noLimit)
		}
	}
}
