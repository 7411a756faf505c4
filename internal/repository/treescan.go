package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// What follows finds out where values of JSON begin and end. Those that are taken are
// parsed by encoding/json: r.json is what was found, without the space between.

// members reads an object, and calls each for each of its keys, as it is quoted; each
// reads the value.
func (r *treeReader) members(each func(key []byte) error) error {
	return r.list('{', '}', func() error {
		start := len(r.json)
		if err := r.text(); err != nil {
			return err
		}
		key := r.json[start:]
		if err := r.take(':'); err != nil {
			return err
		}
		r.json = append(r.json, ':')
		return each(key)
	})
}

// elements reads an array, and calls each for each element, which it reads.
func (r *treeReader) elements(each func() error) error { return r.list('[', ']', each) }

// list reads what stands between two brackets.
func (r *treeReader) list(begin, end byte, each func() error) error {
	if err := r.take(begin); err != nil {
		return err
	}
	r.json = append(r.json, begin)
	if c, err := r.peek(); err != nil || c == end {
		r.pos++
		r.json = append(r.json, end)
		return err
	}
	for {
		if _, err := r.peek(); err != nil {
			return err
		}
		if err := each(); err != nil {
			return err
		}
		c, err := r.peek()
		if err != nil {
			return err
		}
		r.pos++
		r.json = append(r.json, c)
		switch c {
		case ',':
		case end:
			return nil
		default:
			return fmt.Errorf("%q where %q or a comma belongs", c, end)
		}
	}
}

// skip passes over one value.
func (r *treeReader) skip() error {
	r.json = r.json[:0]
	if err := r.value(); err != nil {
		return err
	}
	if !json.Valid(r.json) {
		return errors.New("a value is no JSON")
	}
	return nil
}

// value reads one value.
func (r *treeReader) value() error {
	for depth := 0; ; {
		c, err := r.peek()
		if err != nil {
			return err
		}
		switch c {
		case '"':
			err = r.text()
		case '{', '[':
			depth++
			r.byte(c)
		case '}', ']':
			depth--
			r.byte(c)
		case ',', ':':
			r.byte(c)
		default:
			err = r.scalar()
		}
		if err != nil || depth == 0 {
			return err
		}
		if depth < 0 {
			return errors.New("a value is missing")
		}
	}
}

// byte takes the next byte, which was looked at.
func (r *treeReader) byte(c byte) {
	r.pos++
	r.json = append(r.json, c)
}

// scalar reads a number, true, false or null. Where one cannot be, a space keeps it from
// becoming a part of what is in front.
func (r *treeReader) scalar() error {
	if n := len(r.json); n > 0 && bytes.IndexByte([]byte("[{,:"), r.json[n-1]) < 0 {
		r.json = append(r.json, ' ')
	}
	for {
		part := r.buf[r.pos:]
		for i, c := range part {
			switch c {
			case ' ', '\t', '\r', '\n', ',', ':', '"', '[', ']', '{', '}':
				r.json = append(r.json, part[:i]...)
				r.pos += i
				return nil
			}
		}
		r.json = append(r.json, part...)
		r.pos = len(r.buf)
		if err := r.more(); err != nil {
			return err // all scalars are in something that ends
		}
	}
}

// text reads a string.
func (r *treeReader) text() error {
	if err := r.take('"'); err != nil {
		return err
	}
	r.json = append(r.json, '"')
	for escaped := false; ; {
		part := r.buf[r.pos:]
		for i, c := range part {
			switch {
			case escaped:
				escaped = false
			case c == '\\':
				escaped = true
			case c == '"':
				r.json = append(r.json, part[:i+1]...)
				r.pos += i + 1
				return nil
			}
		}
		r.json = append(r.json, part...)
		r.pos = len(r.buf)
		if err := r.more(); err != nil {
			return err
		}
	}
}

// take reads one byte, behind space.
func (r *treeReader) take(want byte) error {
	c, err := r.peek()
	if err != nil {
		return err
	}
	if c != want {
		return fmt.Errorf("%q where %q belongs", c, want)
	}
	r.pos++
	return nil
}

// peek returns the next byte that is no space, and does not take it.
func (r *treeReader) peek() (byte, error) {
	for {
		for ; r.pos < len(r.buf); r.pos++ {
			switch c := r.buf[r.pos]; c {
			case ' ', '\t', '\r', '\n':
			default:
				return c, nil
			}
		}
		if err := r.more(); err != nil {
			return 0, err
		}
	}
}

// ahead returns the next n bytes, and does not take them; n is less than treeWindow.
func (r *treeReader) ahead(n int) ([]byte, error) {
	for len(r.buf)-r.pos < n {
		if err := r.more(); err != nil {
			return nil, err
		}
	}
	return r.buf[r.pos : r.pos+n], nil
}

// more adds to buf. At the end that is [io.ErrUnexpectedEOF].
func (r *treeReader) more() error {
	if r.rd == nil {
		return io.ErrUnexpectedEOF
	}
	kept := copy(r.window, r.buf[r.pos:])
	n, err := io.ReadAtLeast(r.rd, r.window[kept:], 1)
	r.buf, r.pos = r.window[:kept+n], 0
	r.left -= n
	if n > 0 {
		return nil
	}
	r.rd = nil
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// end makes sure that nothing follows.
func (r *treeReader) end() error {
	c, err := r.peek()
	switch {
	case err == nil:
		return fmt.Errorf("%q behind the end", c)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil
	}
	return err
}
