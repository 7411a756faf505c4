// Package escape makes bytes that a guest chose safe to show on a terminal, in
// a log line or on a page.
//
// File names, labels and console output of a guest may hold terminal control
// sequences, line breaks that forge log lines, characters that reverse the
// direction of text, or bytes that are no text at all. [Bytes] turns any bytes
// into one line of printable text, and [Unescape] turns that text back into
// exactly those bytes, so no two names ever look alike because of the escaping.
package escape

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bytes returns b as printable text. Printable characters stand for
// themselves; a backslash becomes \\; newline, carriage return and tab become
// \n, \r and \t; any other character that is not printable (controls, format
// and bidirectional characters, unusual spaces, unassigned code points) becomes
// \u{HEX}; and a byte that is not part of valid UTF-8 becomes \xHH.
func Bytes(b []byte) string {
	if plain(b) {
		return string(b)
	}
	var out strings.Builder
	out.Grow(len(b) + 16)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&out, `\x%02x`, b[0])
		case r == '\\':
			out.WriteString(`\\`)
		default:
			writeRune(&out, r)
		}
		b = b[n:]
	}
	return out.String()
}

// Line makes s, a message of doubtful origin, safe to print as part of one
// line. It differs from [Bytes] in that backslashes stand for themselves, so
// that text which is escaped already reads the same; it cannot be reversed.
func Line(s string) string {
	if plain([]byte(s)) {
		return s
	}
	var out strings.Builder
	out.Grow(len(s) + 16)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&out, `\x%02x`, s[i])
		} else {
			writeRune(&out, r)
		}
		i += n
	}
	return out.String()
}

// writeRune writes one valid character that is not a backslash to be escaped.
func writeRune(out *strings.Builder, r rune) {
	switch {
	case r == '\n':
		out.WriteString(`\n`)
	case r == '\r':
		out.WriteString(`\r`)
	case r == '\t':
		out.WriteString(`\t`)
	case Printable(r):
		out.WriteRune(r)
	default:
		fmt.Fprintf(out, `\u{%x}`, r)
	}
}

// Printable reports whether r may stand for itself: letters, marks, numbers,
// punctuation, symbols and the ASCII space, as Unicode classes them. Format
// characters (category Cf, where the bidirectional controls are), the line and
// paragraph separators and all spaces but U+0020 are not among them.
func Printable(r rune) bool { return unicode.IsPrint(r) }

// plain reports whether b is printable ASCII without a backslash, the case of
// almost every name.
func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

// ErrSyntax says that a text was not made by [Bytes].
var ErrSyntax = errors.New("not an escaped name")

// Unescape is the reverse of [Bytes]. It accepts exactly what Bytes produces:
// anything else is [ErrSyntax].
func Unescape(s string) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for rest := s; rest != ""; {
		i := strings.IndexByte(rest, '\\')
		if i < 0 {
			out = append(out, rest...)
			break
		}
		out = append(out, rest[:i]...)
		var err error
		if out, rest, err = unescapeOne(out, rest[i+1:]); err != nil {
			return nil, err
		}
	}
	// The escaped form of a name is unique, so comparing is the whole check.
	if Bytes(out) != s {
		return nil, ErrSyntax
	}
	return out, nil
}

// unescapeOne appends what the escape behind a backslash stands for, and
// returns the text that follows it.
func unescapeOne(out []byte, s string) ([]byte, string, error) {
	if s == "" {
		return nil, "", ErrSyntax
	}
	switch s[0] {
	case '\\':
		return append(out, '\\'), s[1:], nil
	case 'n':
		return append(out, '\n'), s[1:], nil
	case 'r':
		return append(out, '\r'), s[1:], nil
	case 't':
		return append(out, '\t'), s[1:], nil
	case 'x':
		if len(s) < 3 {
			return nil, "", ErrSyntax
		}
		v, err := strconv.ParseUint(s[1:3], 16, 8)
		if err != nil {
			return nil, "", ErrSyntax
		}
		return append(out, byte(v)), s[3:], nil
	case 'u':
		end := strings.IndexByte(s, '}')
		if end < 3 || s[1] != '{' {
			return nil, "", ErrSyntax
		}
		v, err := strconv.ParseUint(s[2:end], 16, 32)
		if err != nil || v > unicode.MaxRune {
			return nil, "", ErrSyntax
		}
		return utf8.AppendRune(out, rune(v)), s[end+1:], nil
	}
	return nil, "", ErrSyntax
}
