package lvm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// render writes a section in one way only, so that two are equal if their texts are.
func render(s *section) string {
	var b strings.Builder
	for _, e := range s.settings {
		var values []string
		for _, v := range e.values {
			if v.isNumber {
				values = append(values, fmt.Sprint(v.number))
			} else {
				values = append(values, fmt.Sprintf("%q", v.text))
			}
		}
		text := strings.Join(values, ",")
		if e.list {
			text = "[" + text + "]"
		}
		fmt.Fprintf(&b, "%s=%s;", e.name, text)
	}
	for _, c := range s.sections {
		fmt.Fprintf(&b, "%s{%s}", c.name, render(c))
	}
	return b.String()
}

// TestParseText has the forms of the text, and what is none with its place.
func TestParseText(t *testing.T) {
	long := strings.Repeat("n", maxName)
	nested := func(n int) string { return strings.Repeat("a{", n) + strings.Repeat("}", n) }
	for _, c := range []struct {
		text, want string // with "!", the start of the error
	}{
		{"", ""},
		{"\x00\x00\x00", ""},
		{" \t\r\n# nothing", ""},
		{"a=1", "a=1;"},
		{"a = -1 b=+2", "a=-1;b=2;"},
		{"a=9223372036854775807", "a=9223372036854775807;"},
		{"a=-9223372036854775808", "a=-9223372036854775808;"},
		{`a="b"c="d"`, `a="b";c="d";`},
		{`a=""`, `a="";`},
		{`a="\"\\\n"`, `a="\"\\n";`}, // a backslash stands for what follows it
		{"a=\"x\ny\"", `a="x\ny";`},
		{"a=[]", "a=[];"},
		{`a = [ 1 , "two",3,]`, `a=[1,"two",3];`},
		{"a=1 # b=2\nc=3", "a=1;c=3;"},
		{"a{}", "a{}"},
		{"a { b = 1 c { d = 2 } e = 3 }", "a{b=1;e=3;c{d=2;}}"},
		{"a-b.c_d+1=1", "a-b.c_d+1=1;"},
		{long + "=1", long + "=1;"},
		{nested(maxDepth), strings.Repeat("a{", maxDepth) + strings.Repeat("}", maxDepth)},

		{"a", `!at offset 0x0: damaged: "a" is neither a section nor a setting`},
		{"a=", `!at offset 0x2: damaged: "a" is set to what is neither`},
		{"a=x", `!at offset 0x2: damaged: "a" is set to what is neither`},
		{"a=1x", `!at offset 0x2: damaged: "a" is set to what is neither`},
		{"a=1.5", `!at offset 0x2: damaged: "a" is set to what is neither`},
		{"a=--1", `!at offset 0x2: damaged: "a" is set to what is neither`},
		{"a=9223372036854775808", `!at offset 0x2: damaged: "a" is set to what is neither`},
		{`a="b`, `!at offset 0x2: damaged: the string of "a" does not end`},
		{`a="b\`, `!at offset 0x2: damaged: the string of "a" does not end`},
		{`a="b\"`, `!at offset 0x2: damaged: the string of "a" does not end`},
		{"a=[1 2]", `!at offset 0x5: damaged: the list of "a" does not go on`},
		{"a=[1", `!at offset 0x4: damaged: the list of "a" does not go on`},
		{"a=[,]", `!at offset 0x3: damaged: "a" is set to what is neither`},
		{"a=[[1]]", `!at offset 0x3: damaged: "a" is set to what is neither`},
		{"=1", `!at offset 0x0: damaged: a name is expected, not '='`},
		{"}", `!at offset 0x0: damaged: a name is expected, not '}'`},
		{"a{}}", `!at offset 0x3: damaged: a name is expected, not '}'`},
		{"a{", `!at offset 0x2: damaged: section "a" does not end`},
		{"a{b=1\x00}", `!at offset 0x5: damaged: section "a" does not end`},
		{"a=1\x00\x00b", "!at offset 0x5: damaged: it goes on behind its end"},
		{"# a\x00\nb=1", "!at offset 0x4: damaged: it goes on behind its end"},
		{"a=1 b=2 a=3", `!at offset 0x8: damaged: "a" is set twice`},
		{"a=1 a{}", `!at offset 0x4: damaged: "a" is there twice`},
		{"b{a{}a{}}", `!at offset 0x5: damaged: "a" is there twice`},
		{long + "n=1", "!at offset 0x0: damaged: "},
		{nested(maxDepth + 1), "!at offset 0x10: beyond a limit: sections lie more than 8 deep"},
	} {
		s, err := parseText(c.text)
		want, refused := strings.CutPrefix(c.want, "!")
		switch {
		case refused && (err == nil || !strings.HasPrefix(err.Error(), "lvm: metadata text "+want)):
			t.Errorf("%.40q: %v, want %s", c.text, err, want)
		case !refused && err != nil:
			t.Errorf("%.40q: %v", c.text, err)
		case !refused && render(s) != want:
			t.Errorf("%.40q is %s, want %s", c.text, render(s), want)
		}
	}
}

// TestParseLimit has as many items as a text may have, and one more.
func TestParseLimit(t *testing.T) {
	for n, want := range map[int]error{maxItems: nil, maxItems + 1: disk.ErrLimit} {
		list := "a=[" + strings.Repeat("1,", n-1) + "]" // the setting is one, too
		if _, err := parseText(list); !errors.Is(err, want) {
			t.Errorf("a list of %d items: %v", n, err)
		}
		var sections strings.Builder
		for i := range n / 2 {
			fmt.Fprintf(&sections, "s%d{}t%d{}", i, i)
		}
		if n%2 > 0 {
			sections.WriteString("u{}")
		}
		if _, err := parseText(sections.String()); !errors.Is(err, want) {
			t.Errorf("%d sections: %v", n, err)
		}
	}
}

// TestIsName: what LVM takes for the name of a group or a volume is safe in a path.
func TestIsName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "vg-0_1.2+3": true, "...": true, strings.Repeat("n", 127): true,
		"": false, ".": false, "..": false, "-a": false, "a/b": false, "a b": false, "a\x00": false, "ä": false, strings.Repeat("n", 128): false,
	} {
		if isName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
