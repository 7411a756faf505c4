package wire

import (
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
)

// Error is a reader's error that is no [*disk.Error]: a text, and the sentinel
// that it wraps, if that is one of the few which cross the socket.
type Error struct {
	Text string
	Err  error // a sentinel, or nil
}

func (e *Error) Error() string { return e.Text }

func (e *Error) Unwrap() error { return e.Err }

// sentinels are the errors that arrive as themselves, numbered from 1.
func sentinels() []error {
	return []error{
		disk.ErrCorrupt, disk.ErrUnsupported, disk.ErrLimit, disk.ErrNotExist,
		io.EOF, io.ErrUnexpectedEOF,
	}
}

// An encoded error is a list of layers, outermost first, each led by its kind.
const (
	layerDisk     = 1 // a disk.Error; another layer follows
	layerSentinel = 2 // a sentinel; the last layer
	layerText     = 3 // an Error; the last layer
)

// AppendError appends err to b. Long texts are cut.
func AppendError(b []byte, err error) []byte {
	for depth := 1; ; depth++ {
		e, ok := err.(*disk.Error)
		if !ok || e.Err == nil || depth >= maxErrorDepth {
			return appendLast(b, err)
		}
		b = putU8(b, layerDisk)
		b = putString(b, cut(e.Layer))
		b = putString(b, cut(e.Structure))
		b = putI64(b, max(e.Offset, -1))
		b = putString(b, cut(e.Detail))
		b = putString(b, cut(e.Hint))
		err = e.Err
	}
}

func appendLast(b []byte, err error) []byte {
	list := sentinels()
	if i := slices.Index(list, err); i >= 0 {
		return putU8(putU8(b, layerSentinel), uint8(i+1))
	}
	i := slices.IndexFunc(list, func(s error) bool { return errors.Is(err, s) })
	b = putU8(putU8(b, layerText), uint8(i+1))
	return putString(b, cut(err.Error()))
}

// cut shortens s to what the protocol takes, at the end of a character.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText - len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// DecodeError decodes an error. Its texts are made printable, whoever wrote
// them. remote is the error that the worker tells; err says that the message is
// broken.
func DecodeError(payload []byte) (remote, err error) {
	d := decoder{buf: payload}
	var layers []*disk.Error
	var last error
	for last == nil && d.err == nil {
		switch kind := d.u8(); kind {
		case layerDisk:
			if len(layers) >= maxErrorDepth {
				d.fail("too many layers of errors")
				break
			}
			e := &disk.Error{Layer: d.text(), Structure: d.text(), Offset: d.i64(), Detail: d.text(), Hint: d.text()}
			if e.Offset < -1 {
				d.fail("offset %d", e.Offset)
			}
			layers = append(layers, e)
		case layerSentinel:
			if last = d.sentinel(); last == nil {
				d.fail("no sentinel")
			}
		case layerText:
			last = &Error{Err: d.sentinel(), Text: d.text()}
		default:
			d.fail("layer of kind %d", kind)
		}
	}
	if err := d.done(); err != nil {
		return nil, err
	}
	for _, e := range slices.Backward(layers) {
		e.Err = last
		last = e
	}
	return last, nil
}

// text returns a string that is safe to print.
func (d *decoder) text() string {
	return escape.Line(strings.ToValidUTF8(d.string(maxText), "\ufffd"))
}

func (d *decoder) sentinel() error {
	i := int(d.u8())
	list := sentinels()
	if i > len(list) {
		d.fail("sentinel %d", i)
	}
	if i == 0 || i > len(list) {
		return nil
	}
	return list[i-1]
}
