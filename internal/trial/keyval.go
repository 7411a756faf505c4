package trial

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// setting is one "key=value" of an option of QEMU; a word without "=" is "key=on", or
// the value of the option's first key, which has no name then.
type setting struct{ key, value string }

// settings are those of an option, in their order.
type settings []setting

// parseSettings reads the syntax of QEMU's options (qemu(1), "-drive"): a comma in a
// value is written twice. first is the key of a word at the beginning that has none.
func parseSettings(text, first string) settings {
	var list settings
	for part := range splitCommas(text) {
		key, value, ok := strings.Cut(part, "=")
		switch {
		case ok:
		case len(list) == 0 && first != "":
			key, value = first, part
		default:
			value = "on"
			if k, isOff := strings.CutPrefix(key, "no"); isOff && len(list) > 0 {
				key, value = k, "off"
			}
		}
		list = append(list, setting{key, value})
	}
	return list
}

// splitCommas yields the parts between commas, where two are one in a part.
func splitCommas(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		var part strings.Builder
		for i := 0; i < len(text); i++ {
			if text[i] != ',' {
				part.WriteByte(text[i])
				continue
			}
			if i+1 < len(text) && text[i+1] == ',' {
				part.WriteByte(',')
				i++
				continue
			}
			if !yield(part.String()) {
				return
			}
			part.Reset()
		}
		if part.Len() > 0 || text == "" {
			yield(part.String())
		}
	}
}

// parseObject reads an option that may be written as JSON too, as -blockdev and
// -device are. What lies deeper has the keys "a.b".
func parseObject(text, first string) (settings, error) {
	if !strings.HasPrefix(text, "{") {
		return parseSettings(text, first), nil
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	var list settings
	if err := list.flatten("", object, 0); err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b setting) int { return strings.Compare(a.key, b.key) })
	return list, nil
}

// maxNesting bounds how deep JSON lies: a node below a node below a node.
const maxNesting = 16

func (s *settings) flatten(prefix string, v any, depth int) error {
	if depth > maxNesting {
		return errors.New("it is nested too deep")
	}
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if err := s.flatten(join(prefix, key), value, depth+1); err != nil {
				return err
			}
		}
	case []any:
		for i, value := range v {
			if err := s.flatten(join(prefix, strconv.Itoa(i)), value, depth+1); err != nil {
				return err
			}
		}
	case bool:
		*s = append(*s, setting{prefix, map[bool]string{true: "on", false: "off"}[v]})
	case nil:
		// null is what a key has that is not given, but for "backing", which has no
		// meaning here.
	default:
		*s = append(*s, setting{prefix, fmt.Sprint(v)})
	}
	return nil
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

// get returns the value of a key; of several the last counts, as it does for QEMU.
func (s settings) get(key string) string {
	for _, one := range slices.Backward(s) {
		if one.key == key {
			return one.value
		}
	}
	return ""
}

func (s settings) on(keys ...string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { v := s.get(k); return v == "on" || v == "true" || v == "yes" })
}

// only returns the settings that have one of the keys. A key with a dot at its end
// stands for all that begin with it.
func (s settings) only(keys ...string) settings {
	var out settings
	for _, one := range s {
		if slices.ContainsFunc(keys, func(k string) bool {
			return one.key == k || strings.HasSuffix(k, ".") && strings.HasPrefix(one.key, k)
		}) {
			out = append(out, one)
		}
	}
	return out
}

// with puts further settings behind.
func (s settings) with(pairs ...string) settings {
	out := slices.Clone(s)
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, setting{pairs[i], pairs[i+1]})
	}
	return out
}

// String writes them as QEMU reads them.
func (s settings) String() string {
	var parts []string
	for _, one := range s {
		parts = append(parts, one.key+"="+strings.ReplaceAll(one.value, ",", ",,"))
	}
	return strings.Join(parts, ",")
}
