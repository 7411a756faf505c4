package lvm

import (
	"math"
	"strconv"
)

const (
	// maxDepth is how deeply sections may lie in one another. LVM's own lie five
	// deep: text, group, logical volumes, volume, segment.
	maxDepth = 8
	// maxItems bounds the sections, settings and values of a text together, and
	// so the memory that it takes: about 90 bytes each. A volume has some twenty.
	maxItems = 1 << 17
	// maxName is the longest name of a section or a setting, in bytes. LVM's
	// names have at most 127.
	maxName = 128

	maxNumber = math.MaxInt64

	textName = "metadata text"
)

// section is a named part of the text: "name { … }".
type section struct {
	name     string
	off      int // in the text, in bytes
	settings []setting
	sections []*section
}

// setting is "name = value" or "name = [value, …]".
type setting struct {
	name   string
	off    int
	list   bool
	values []value
}

// value is a number or a string.
type value struct {
	text     string
	number   int64
	isNumber bool
}

// parser reads the text of the metadata. Its grammar is the part of LVM's that
// LVM writes: comments to the end of the line, names, decimal numbers, strings
// in double quotes with a backslash before quotes and backslashes, and lists.
type parser struct {
	text  string
	off   int
	items int
}

// parseText returns the text as one section without a name.
func parseText(text string) (*section, error) {
	p := &parser{text: text}
	root := &section{}
	if err := p.body(root, 0); err != nil {
		return nil, err
	}
	return root, nil
}

func textDamaged(off int, format string, args ...any) error {
	return layer.Damaged(textName, int64(off), format, args...)
}

// count takes note of one more item.
func (p *parser) count() error {
	if p.items++; p.items > maxItems {
		return layer.Beyond(textName, int64(p.off), "more than %d sections, settings and values", maxItems)
	}
	return nil
}

// body reads what is in a section, up to and with its closing brace; the text as
// a whole, at depth 0, ends with NUL bytes or with nothing.
func (p *parser) body(s *section, depth int) error {
	for {
		p.space()
		switch b := p.peek(); {
		case b == '}' && depth > 0:
			p.off++
			return p.distinct(s)
		case b == 0 && depth == 0:
			return p.end(s)
		case b == 0:
			return textDamaged(p.off, "section %q does not end", s.name)
		}
		if err := p.entry(s, depth); err != nil {
			return err
		}
	}
}

// end checks that nothing but NUL bytes is left.
func (p *parser) end(s *section) error {
	for i := p.off; i < len(p.text); i++ {
		if p.text[i] != 0 {
			return textDamaged(i, "it goes on behind its end")
		}
	}
	return p.distinct(s)
}

// distinct checks that no name is in a section twice.
func (p *parser) distinct(s *section) error {
	seen := make(map[string]bool, len(s.settings)+len(s.sections))
	for _, e := range s.settings {
		if seen[e.name] {
			return textDamaged(e.off, "%q is set twice", e.name)
		}
		seen[e.name] = true
	}
	for _, e := range s.sections {
		if seen[e.name] {
			return textDamaged(e.off, "%q is there twice", e.name)
		}
		seen[e.name] = true
	}
	return nil
}

// entry reads a section or a setting.
func (p *parser) entry(s *section, depth int) error {
	if err := p.count(); err != nil {
		return err
	}
	off := p.off
	name := p.name()
	if name == "" {
		return textDamaged(off, "a name is expected, not %q", p.peek())
	}
	p.space()
	b := p.peek()
	p.off++
	switch b {
	case '=':
		e := setting{name: name, off: off}
		if err := p.values(&e); err != nil {
			return err
		}
		s.settings = append(s.settings, e)
		return nil
	case '{':
		if depth == maxDepth {
			return layer.Beyond(textName, int64(off), "sections lie more than %d deep", maxDepth)
		}
		sub := &section{name: name, off: off}
		s.sections = append(s.sections, sub)
		return p.body(sub, depth+1)
	}
	return textDamaged(off, "%q is neither a section nor a setting", name)
}

// values reads what is behind "=".
func (p *parser) values(e *setting) error {
	p.space()
	if p.peek() != '[' {
		return p.value(e)
	}
	p.off++
	e.list = true
	for {
		p.space()
		if p.peek() == ']' {
			p.off++
			return nil
		}
		if err := p.value(e); err != nil {
			return err
		}
		p.space()
		switch p.peek() {
		case ',':
			p.off++
		case ']':
		default:
			return textDamaged(p.off, "the list of %q does not go on", e.name)
		}
	}
}

// value reads one number or string.
func (p *parser) value(e *setting) error {
	if err := p.count(); err != nil {
		return err
	}
	start := p.off
	if p.peek() == '"' {
		text, ok := p.quoted()
		if !ok {
			return textDamaged(start, "the string of %q does not end", e.name)
		}
		e.values = append(e.values, value{text: text})
		return nil
	}
	for b := p.peek(); b == '-' || b == '+' || b == '.' || isAlphanumeric(b); b = p.peek() {
		p.off++
	}
	n, err := strconv.ParseInt(p.text[start:p.off], 10, 64)
	if err != nil {
		return textDamaged(start, "%q is set to what is neither a number nor a string", e.name)
	}
	e.values = append(e.values, value{number: n, isNumber: true})
	return nil
}

// quoted reads a string from its opening to its closing quote.
func (p *parser) quoted() (string, bool) {
	p.off++
	start := p.off
	var plain []byte // nil as long as nothing is escaped
	for ; p.off < len(p.text); p.off++ {
		b := p.text[p.off]
		switch {
		case b == '"':
			p.off++
			if plain == nil {
				return p.text[start : p.off-1], true
			}
			return string(plain), true
		case b == '\\' && p.off+1 < len(p.text):
			if plain == nil {
				plain = append(make([]byte, 0, p.off-start+16), p.text[start:p.off]...)
			}
			p.off++
			plain = append(plain, p.text[p.off])
		case plain != nil:
			plain = append(plain, b)
		}
	}
	return "", false
}

// name reads the name of a section or setting, "" where there is none.
func (p *parser) name() string {
	start := p.off
	for p.off < len(p.text) && p.off-start < maxName && isNameByte(p.text[p.off]) {
		p.off++
	}
	return p.text[start:p.off]
}

func isNameByte(b byte) bool {
	return isAlphanumeric(b) || b == '_' || b == '-' || b == '.' || b == '+'
}

// space skips white space and comments.
func (p *parser) space() {
	for comment := false; p.off < len(p.text); p.off++ {
		switch b := p.text[p.off]; {
		case b == '\n':
			comment = false
		case comment && b != 0:
		case b == '#':
			comment = true
		case b != ' ' && b != '\t' && b != '\r':
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.off < len(p.text) {
		return p.text[p.off]
	}
	return 0
}

// isName reports whether s can be the name of a group or volume: LVM allows no
// others, and these are safe to print and to put into a path.
func isName(s string) bool {
	if s == "" || len(s) >= maxName || s[0] == '-' || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		if !isNameByte(s[i]) {
			return false
		}
	}
	return true
}

// only returns the one section in s, or nil.
func (s *section) only() *section {
	if len(s.sections) != 1 {
		return nil
	}
	return s.sections[0]
}

// child returns a section in s, or nil.
func (s *section) child(name string) *section {
	for _, c := range s.sections {
		if c.name == name {
			return c
		}
	}
	return nil
}

// decoder takes settings from sections. The first error sticks, and what is
// read after it has no meaning.
type decoder struct{ err error }

func (d *decoder) fail(off int, format string, args ...any) {
	if d.err == nil {
		d.err = textDamaged(off, format, args...)
	}
}

// setting returns a setting, or nil.
func (s *section) setting(name string) *setting {
	for i := range s.settings {
		if s.settings[i].name == name {
			return &s.settings[i]
		}
	}
	return nil
}

func (d *decoder) setting(s *section, name string) *setting {
	e := s.setting(name)
	if e == nil {
		d.fail(s.off, "section %q does not set %q", s.name, name)
	}
	return e
}

// str returns a setting that is a string.
func (d *decoder) str(s *section, name string) string {
	e := d.setting(s, name)
	if e == nil {
		return ""
	}
	if e.list || len(e.values) != 1 || e.values[0].isNumber {
		d.fail(e.off, "%q is not a string", name)
		return ""
	}
	return e.values[0].text
}

// number returns a setting that is a number from least to most.
func (d *decoder) number(s *section, name string, least, most int64) int64 {
	e := d.setting(s, name)
	if e == nil {
		return 0
	}
	if e.list || len(e.values) != 1 || !e.values[0].isNumber {
		d.fail(e.off, "%q is not a number", name)
		return 0
	}
	n := e.values[0].number
	if n < least || n > most {
		d.fail(e.off, "%q is %d, possible are %d to %d", name, n, least, most)
		return 0
	}
	return n
}

// words returns a setting that is a list of strings; LVM writes a single one
// without brackets as well.
func (d *decoder) words(s *section, name string) []value {
	e := d.setting(s, name)
	if e == nil {
		return nil
	}
	for _, v := range e.values {
		if v.isNumber {
			d.fail(e.off, "%q has a number where words are expected", name)
		}
	}
	return e.values
}

// uuid returns the UUID of a section, without dashes.
func (d *decoder) uuid(s *section) string {
	text := d.str(s, "id")
	plain, ok := parseUUID(text)
	if !ok {
		d.fail(s.off, "%.48q is not a UUID of LVM", text)
	}
	return plain
}
