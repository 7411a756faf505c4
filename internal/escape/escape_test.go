package escape_test

import (
	"bytes"
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/drydock-vm/drydock/internal/escape"
)

func TestBytes(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "etc/passwd-1.2~", "etc/passwd-1.2~"},
		{"empty", "", ""},
		{"space", "a b", "a b"},
		{"letters", "größe 日本", "größe 日本"},
		{"combining mark stays with its letter", "e\u0301", "e\u0301"},
		{"backslash", `a\n`, `a\\n`},
		{"newline", "a\nb\r\t", `a\nb\r\t`},
		{"terminal escape", "\x1b[2J", `\u{1b}[2J`},
		{"NUL and DEL", "\x00\x7f", `\u{0}\u{7f}`},
		{"C1 control", "\u009b31m", `\u{9b}31m`},
		{"raw C1 byte", "\x9b31m", `\x9b31m`},
		{"right-to-left override", "a\u202egpj.exe", `a\u{202e}gpj.exe`},
		{"isolates", "\u2066\u2069", `\u{2066}\u{2069}`},
		{"zero width", "a\u200bb\ufeff", `a\u{200b}b\u{feff}`},
		{"no-break space", "a\u00a0b", `a\u{a0}b`},
		{"line separator", "a\u2028b", `a\u{2028}b`},
		{"tag characters", "\U000e0041", `\u{e0041}`},
		{"private use", "\ue000", `\u{e000}`},
		{"invalid UTF-8", "a\xff\xc3", `a\xff\xc3`},
		{"surrogate half", "\xed\xa0\x80", `\xed\xa0\x80`},
		{"overlong slash", "\xc0\xaf", `\xc0\xaf`},
		{"replacement character itself", "\ufffd", "\ufffd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := escape.Bytes([]byte(c.in))
			if got != c.want {
				t.Errorf("Bytes(%q) = %q, want %q", c.in, got, c.want)
			}
			back, err := escape.Unescape(got)
			if err != nil || string(back) != c.in {
				t.Errorf("Unescape(%q) = %q, %v, want %q", got, back, err, c.in)
			}
		})
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"ext4: inode 12":      "ext4: inode 12",
		`name a\x1bb`:         `name a\x1bb`,
		"a\nERROR forged":     `a\nERROR forged`,
		"\x1b]0;title\x07":    `\u{1b}]0;title\u{7}`,
		"bad \xff \u202e end": `bad \xff \u{202e} end`,
	} {
		if got := escape.Line(in); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
}

// Text that Bytes never makes is refused, so that one name has one spelling.
func TestUnescapeRefuses(t *testing.T) {
	for _, s := range []string{
		`\`, `\q`, `\x1`, `\xzz`, `\x41`, `\x1b`, `\xFF`, `\u{41}`, `\u{`, `\u{}`, `\u41`,
		`\u{110000}`, `\u{d800}`, `\u{1B}`, `\u{01b}`, "\x1b", "\n", "\xff", "\u202e", `\xc3\xa9`,
	} {
		if b, err := escape.Unescape(s); !errors.Is(err, escape.ErrSyntax) {
			t.Errorf("Unescape(%q) = %q, %v, want ErrSyntax", s, b, err)
		}
	}
}

func FuzzBytes(f *testing.F) {
	for _, s := range []string{"", "a", `\x`, "\x1b[0m", "\u202e", "\xff\xfe", "a\\n\n", "\ufffd"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got := escape.Bytes(in)
		if !utf8.ValidString(got) {
			t.Fatalf("Bytes(%q) is not valid UTF-8: %q", in, got)
		}
		for _, r := range got {
			if !escape.Printable(r) {
				t.Fatalf("Bytes(%q) = %q has the character %U", in, got, r)
			}
		}
		back, err := escape.Unescape(got)
		if err != nil || !bytes.Equal(back, in) {
			t.Fatalf("Unescape(%q) = %q, %v, want %q", got, back, err, in)
		}
		for _, r := range escape.Line(string(in)) {
			if !escape.Printable(r) {
				t.Fatalf("Line(%q) has the character %U", in, r)
			}
		}
	})
}
