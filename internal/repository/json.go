package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxMembers bounds an object: they are remembered, and the shortest takes ten times the
// memory that it takes as JSON. Restic writes two dozen at most.
const maxMembers = 1 << 10

// jsonWalker reads a JSON document value by value, so that the first thing that
// is wrong ends the work, and a document of a million empty objects does not
// become a million structs first.
type jsonWalker struct{ dec *json.Decoder }

func newJSONWalker(rd io.Reader) jsonWalker { return jsonWalker{json.NewDecoder(rd)} }

// object calls field for each key of an object; field reads the value. Any key
// comes at most once.
func (w jsonWalker) object(field func(key string) error) error {
	if err := w.delim('{'); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for w.dec.More() {
		token, err := w.dec.Token()
		if err != nil {
			return err
		}
		key, ok := token.(string)
		if !ok || seen[key] {
			return fmt.Errorf("key %.80q is no string, or comes twice", fmt.Sprint(token))
		}
		if len(seen) == maxMembers {
			return fmt.Errorf("%w: more than %d keys", ErrLimit, maxMembers)
		}
		seen[key] = true
		if err := field(key); err != nil {
			return err
		}
	}
	return w.delim('}')
}

// array calls element for each element of an array, or for none of null; element
// reads the value.
func (w jsonWalker) array(element func() error) error {
	token, err := w.dec.Token()
	if err != nil {
		return err
	}
	if token == nil {
		return nil
	}
	if token != json.Delim('[') {
		return errors.New("not an array")
	}
	for w.dec.More() {
		if err := element(); err != nil {
			return err
		}
	}
	return w.delim(']')
}

// value reads one value into v.
func (w jsonWalker) value(v any) error { return w.dec.Decode(v) }

// skip passes over one value.
func (w jsonWalker) skip() error {
	var raw json.RawMessage
	return w.dec.Decode(&raw)
}

// end makes sure that nothing follows.
func (w jsonWalker) end() error {
	if _, err := w.dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more data after the end")
	}
	return nil
}

func (w jsonWalker) delim(want json.Delim) error {
	token, err := w.dec.Token()
	if err != nil {
		return err
	}
	if token != want {
		return fmt.Errorf("%.20q where %q belongs", fmt.Sprint(token), want.String())
	}
	return nil
}
