// Package pattern decides by patterns, written as in .gitignore, which paths of
// a guest are meant. Patterns and paths are bytes.
//
//   - A pattern with a slash at its beginning or in its middle is matched
//     against the whole path; one without matches a name at any depth.
//   - "*" matches any part of a name, "?" one byte of it, "[a-z]", "[!a-z]" and
//     "[[:alpha:]]" one byte of a class. None of them matches a slash.
//   - "**" for a whole name matches any number of names; at the end of a pattern
//     one or more.
//   - A slash at the end makes a pattern match folders only.
//   - "!" in front takes back what earlier patterns matched. The last pattern
//     that matches decides.
//   - A backslash takes the meaning away from the byte behind it.
//
// Two things differ from git, for the sake of whoever writes a pattern: what
// git passes over in silence (an empty pattern, a comment, a class without its
// end) is an error here, and a space at the end is part of the pattern.
//
// Matching takes at most the product of the lengths of pattern and path.
package pattern

import (
	"bytes"
	"fmt"
	"strings"
)

// MaxLength is the longest pattern, in bytes: PATH_MAX of Linux.
const MaxLength = 4096

// Error is a pattern that cannot be understood.
type Error struct {
	Pattern string
	Offset  int // in bytes, of what is wrong
	Problem string
}

// Error is one line.
func (e *Error) Error() string {
	return fmt.Sprintf("pattern %.300q, at byte %d: %s", e.Pattern, e.Offset+1, e.Problem)
}

// Result is what a [List] says of a path.
type Result uint8

// The results.
const (
	NoMatch Result = iota
	Match
	Negated // the last pattern that matches has a "!" in front
)

// List is compiled patterns. The nil List matches nothing. It is safe for
// concurrent use.
type List struct {
	source   []string
	patterns []pattern
}

// pattern is one compiled pattern.
type pattern struct {
	names    []name
	anchored bool // matched against the whole path
	dirOnly  bool
	negated  bool
}

// Compile reads patterns. An error is a [*Error] of the first that is wrong.
func Compile(patterns []string) (*List, error) {
	l := &List{source: patterns}
	for _, s := range patterns {
		p, err := compile(s)
		if err != nil {
			return nil, err
		}
		l.patterns = append(l.patterns, p)
	}
	return l, nil
}

// Empty reports whether the list has no patterns.
func (l *List) Empty() bool { return l == nil || len(l.patterns) == 0 }

// Strings returns the patterns as they were written. They are not to be changed.
func (l *List) Strings() []string {
	if l == nil {
		return nil
	}
	return l.source
}

// Match says what the list makes of path, which has no slash at its beginning
// or end. A walk that leaves out a folder leaves out what is in it, as git does:
// Match looks at this one path.
func (l *List) Match(path []byte, dir bool) Result {
	_, result := l.Find(path, dir)
	return result
}

// Find does what Match does, and returns the pattern that decides, as it was
// written.
func (l *List) Find(path []byte, dir bool) (string, Result) {
	if l == nil {
		return "", NoMatch
	}
	for i := len(l.patterns) - 1; i >= 0; i-- {
		p := &l.patterns[i]
		if !p.match(path, dir) {
			continue
		}
		if p.negated {
			return l.source[i], Negated
		}
		return l.source[i], Match
	}
	return "", NoMatch
}

// MayMatchBelow reports whether the list could match something in folder path.
// It may say so in vain, and never says no in vain.
func (l *List) MayMatchBelow(path []byte) bool {
	if l == nil {
		return false
	}
	for i := range l.patterns {
		if p := &l.patterns[i]; !p.negated && p.mayMatchBelow(path) {
			return true
		}
	}
	return false
}

func (p *pattern) match(path []byte, dir bool) bool {
	if p.dirOnly && !dir {
		return false
	}
	if !p.anchored {
		return p.names[0].match(path[bytes.LastIndexByte(path, '/')+1:])
	}
	return matchNames(p.names, path)
}

var slash = []byte("/")

// matchNames matches a whole path. Like name.match it goes back only to the last
// "**", which is enough.
func matchNames(names []name, path []byte) bool {
	rest, more := path, true
	n, retry, retryRest := 0, -1, []byte(nil)
	for more {
		if n < len(names) && names[n].any {
			n++
			retry, retryRest = n, rest
			continue
		}
		if n < len(names) {
			if first, after, found := bytes.Cut(rest, slash); names[n].match(first) {
				n++
				rest, more = after, found
				continue
			}
		}
		if retry < 0 {
			return false
		}
		_, after, found := bytes.Cut(retryRest, slash)
		if !found {
			return false
		}
		n, rest, retryRest = retry, after, after
	}
	return n == len(names)
}

// mayMatchBelow reports whether path fits the beginning of the pattern, and the
// pattern goes on.
func (p *pattern) mayMatchBelow(path []byte) bool {
	if !p.anchored {
		return true
	}
	rest, more := path, len(path) > 0
	for _, n := range p.names {
		if !more || n.any {
			return true
		}
		first, after, found := bytes.Cut(rest, slash)
		if !n.match(first) {
			return false
		}
		rest, more = after, found
	}
	return false
}

// compile reads one pattern.
func compile(s string) (pattern, error) {
	fail := func(at int, problem string) (pattern, error) {
		return pattern{}, &Error{Pattern: s, Offset: at, Problem: problem}
	}
	var p pattern
	rest, at := s, 0
	switch {
	case len(s) > MaxLength:
		return fail(MaxLength, fmt.Sprintf("it is longer than %d bytes", MaxLength))
	case strings.HasPrefix(s, "#"):
		return fail(0, `"#" begins a comment (write "\#" for a name that begins with it)`)
	case strings.IndexByte(s, 0) >= 0:
		return fail(strings.IndexByte(s, 0), "no path has a NUL in it")
	case strings.HasPrefix(s, "!"):
		p.negated, rest, at = true, s[1:], 1
	}
	if strings.HasPrefix(rest, "/") {
		p.anchored, rest, at = true, rest[1:], at+1
	}
	if strings.HasSuffix(rest, "/") {
		p.dirOnly, rest = true, rest[:len(rest)-1]
	}
	if rest == "" {
		return fail(at, "it matches nothing")
	}
	parts := strings.Split(rest, "/")
	p.anchored = p.anchored || len(parts) > 1
	for i, part := range parts {
		if part == "" || part == "." || part == ".." {
			return fail(at, `it has an empty name, a "." or a ".." in it, which no clean path has`)
		}
		n, offset, problem := compileName(part)
		if problem != "" {
			return fail(at+offset, problem)
		}
		// "**" without a slash beside it is "*" twice; three are two, as in git.
		n.any = p.anchored && len(part) > 1 && strings.Trim(part, "*") == ""
		p.names = append(p.names, n)
		if n.any && i == len(parts)-1 {
			p.names = append(p.names, name{tokens: []token{{star: true}}})
		}
		at += len(part) + 1
	}
	return p, nil
}
