package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written as Go writes them: "90s", "2m",
// "168h".
type Duration time.Duration

// durationHint finds the number and the first letter of what a person may
// have meant as a duration.
var durationHint = regexp.MustCompile(`^\s*([0-9]{1,6})\s*([a-zA-Z]*)\s*$`)

// UnmarshalText reads a duration. It is never negative.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return &badValue{
			problem: fmt.Sprintf("%q is not a duration", text),
			hint:    durationFix(string(text)),
		}
	}
	if v < 0 {
		return &badValue{problem: fmt.Sprintf("the duration %q is negative", text)}
	}
	*d = Duration(v)
	return nil
}

// durationFix says how a duration is written that was written another way.
func durationFix(text string) string {
	m := durationHint.FindStringSubmatch(text)
	if m == nil {
		return `write it like "90s", "2m" or "168h"`
	}
	n, _ := strconv.Atoi(m[1]) // at most six digits
	unit := strings.ToLower(m[2])
	switch {
	case unit == "ms" || strings.HasPrefix(unit, "milli"):
		return fmt.Sprintf("write %q", m[1]+"ms")
	case unit == "" || strings.HasPrefix(unit, "s"):
		return fmt.Sprintf("write %q", m[1]+"s")
	case strings.HasPrefix(unit, "mo"):
		return `write it in hours, like "720h"`
	case strings.HasPrefix(unit, "m"):
		return fmt.Sprintf("write %q", m[1]+"m")
	case strings.HasPrefix(unit, "h"):
		return fmt.Sprintf("write %q", m[1]+"h")
	case strings.HasPrefix(unit, "d"):
		return fmt.Sprintf("write %q", strconv.Itoa(24*n)+"h")
	case strings.HasPrefix(unit, "w"):
		return fmt.Sprintf("write %q", strconv.Itoa(7*24*n)+"h")
	}
	return `write it like "90s", "2m" or "168h"`
}

// MarshalText writes the duration without trailing zero parts.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is "2m" where time.Duration says "2m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Size is a number of bytes, written with a binary unit: "512KiB", "256MiB",
// "1GiB".
type Size int64

// The units of a Size, largest first.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1},
}

// sizeForm is a whole number and a unit.
var sizeForm = regexp.MustCompile(`^([0-9]+) ?([KMGT]iB|B)$`)

// sizeHint finds the number and the first letter of what a person may have
// meant as a size.
var sizeHint = regexp.MustCompile(`^\s*([0-9]{1,6})\s*([kKmMgGtT])[a-zA-Z]*\s*$`)

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	m := sizeForm.FindStringSubmatch(string(text))
	if m == nil {
		hint := `write it like "512KiB", "256MiB" or "1GiB"`
		if h := sizeHint.FindStringSubmatch(string(text)); h != nil {
			hint = fmt.Sprintf("write %q", h[1]+strings.ToUpper(h[2])+"iB")
		}
		return &badValue{problem: fmt.Sprintf("%q is not a size", text), hint: hint}
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	for _, u := range sizeUnits {
		if u.name != m[2] {
			continue
		}
		if err != nil || n > math.MaxInt64/u.bytes {
			return &badValue{problem: fmt.Sprintf("the size %q is too large", text)}
		}
		*s = Size(n * u.bytes)
	}
	return nil
}

// MarshalText writes the size in the largest unit that keeps it whole.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the size in the largest unit that keeps it whole.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if int64(s)%u.bytes == 0 && (s != 0 || u.bytes == 1) {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// UnmarshalText reads the name of a layer.
func (l *Layer) UnmarshalText(text []byte) error {
	var names []string
	for _, known := range Layers() {
		if string(known) == string(text) {
			*l = known
			return nil
		}
		names = append(names, string(known))
	}
	return notOneOf(string(text), names)
}

// badValue is what is wrong with a value, before it is known where it stands.
type badValue struct{ problem, hint string }

func (b *badValue) Error() string {
	if b.hint == "" {
		return b.problem
	}
	return b.problem + ": " + b.hint
}

// notOneOf says that value is none of names.
func notOneOf(value string, names []string) *badValue {
	b := &badValue{problem: fmt.Sprintf("%q is not one of %s", value, strings.Join(names, ", "))}
	if near := nearest(value, names); near != "" {
		b.hint = fmt.Sprintf("did you mean %q?", near)
	}
	return b
}
