package pattern

import "strings"

// name is the pattern of one name between slashes.
type name struct {
	any    bool // "**": any number of names
	tokens []token
}

// token matches one byte of set, or any number of any bytes.
type token struct {
	star bool
	set  *byteSet // nil for literal
	lit  byte
}

// byteSet is a set of bytes.
type byteSet [4]uint64

func (s *byteSet) add(c byte)      { s[c>>6] |= 1 << (c & 63) }
func (s *byteSet) has(c byte) bool { return s[c>>6]&(1<<(c&63)) != 0 }

func (t *token) match(c byte) bool {
	if t.set == nil {
		return t.lit == c
	}
	return t.set.has(c)
}

// match matches a whole name. After a mismatch it goes back to the last star
// only: what an earlier one could do, the last one can do too.
func (n *name) match(s []byte) bool {
	t, i, retry, from := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case t < len(n.tokens) && n.tokens[t].star:
			t++
			retry, from = t, i
		case t < len(n.tokens) && n.tokens[t].match(s[i]):
			t++
			i++
		case retry >= 0:
			from++
			t, i = retry, from
		default:
			return false
		}
	}
	for t < len(n.tokens) && n.tokens[t].star {
		t++
	}
	return t == len(n.tokens)
}

// compileName reads the pattern of one name. A problem comes with its offset.
func compileName(s string) (n name, offset int, problem string) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '*':
			if k := len(n.tokens); k == 0 || !n.tokens[k-1].star {
				n.tokens = append(n.tokens, token{star: true})
			}
		case '?':
			all := byteSet{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
			n.tokens = append(n.tokens, token{set: &all})
		case '[':
			set, end, problem := compileClass(s, i)
			if problem != "" {
				return name{}, end, problem
			}
			n.tokens = append(n.tokens, token{set: set})
			i = end
		case '\\':
			if i++; i == len(s) {
				return name{}, i - 1, `a backslash has nothing behind it (write "\\\\" for the letter)`
			}
			n.tokens = append(n.tokens, token{lit: s[i]})
		default:
			n.tokens = append(n.tokens, token{lit: c})
		}
	}
	return n, 0, ""
}

const noEnd = `"[" has no "]" (write "\[" for the letter; a class has no "/" in it)`

// compileClass reads the class that begins at s[start], and returns the offset of
// its last byte.
func compileClass(s string, start int) (set *byteSet, end int, problem string) {
	set = new(byteSet)
	i := start + 1
	negated := i < len(s) && (s[i] == '!' || s[i] == '^')
	if negated {
		i++
	}
	for first := true; ; first = false {
		if i >= len(s) {
			return nil, start, noEnd
		}
		if s[i] == ']' && !first {
			break
		}
		if strings.HasPrefix(s[i:], "[:") {
			n, problem := addNamed(set, s[i:])
			if problem != "" {
				return nil, i, problem
			}
			i += n
			continue
		}
		lo, next := classByte(s, i)
		if next < 0 {
			return nil, start, noEnd
		}
		hi := lo
		if next+1 < len(s) && s[next] == '-' && s[next+1] != ']' {
			if hi, next = classByte(s, next+1); next < 0 {
				return nil, start, noEnd
			}
		}
		if hi < lo {
			return nil, i, "the range is empty"
		}
		for c := int(lo); c <= int(hi); c++ {
			set.add(byte(c))
		}
		i = next
	}
	if negated {
		for k := range set {
			set[k] = ^set[k]
		}
	}
	return set, i, ""
}

// classByte reads one byte of a class, and returns the offset behind it, or -1.
func classByte(s string, i int) (c byte, next int) {
	if s[i] == '\\' {
		i++
	}
	if i >= len(s) {
		return 0, -1
	}
	return s[i], i + 1
}

// named are the classes of POSIX, in the C locale.
var named = map[string]func(c byte) bool{
	"alpha":  isAlpha,
	"digit":  isDigit,
	"alnum":  func(c byte) bool { return isAlpha(c) || isDigit(c) },
	"upper":  func(c byte) bool { return 'A' <= c && c <= 'Z' },
	"lower":  func(c byte) bool { return 'a' <= c && c <= 'z' },
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"space":  func(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
	"print":  func(c byte) bool { return ' ' <= c && c < 0x7f },
	"graph":  func(c byte) bool { return ' ' < c && c < 0x7f },
	"punct":  func(c byte) bool { return ' ' < c && c < 0x7f && !isAlpha(c) && !isDigit(c) },
	"xdigit": func(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' },
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// addNamed adds the class "[:NAME:]" that s begins with, and returns its length.
func addNamed(set *byteSet, s string) (length int, problem string) {
	n, _, ok := strings.Cut(s[2:], ":]")
	is := named[n]
	if !ok || is == nil {
		return 0, `"[:" begins no class that is known, such as [:alpha:] or [:digit:]`
	}
	for c := range 256 {
		if is(byte(c)) {
			set.add(byte(c))
		}
	}
	return len("[:") + len(n) + len(":]"), ""
}
