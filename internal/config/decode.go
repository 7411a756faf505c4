package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxErrors is how many errors one run reports: a file of another kind would
// have one on every line.
const maxErrors = 20

// maxNesting is how deep a file's values may nest. The structs go down to
// vms.NAME.disks.NAME.backing.path.
const maxNesting = 32

// A reader turns a file into a Config and collects what is wrong with it. It
// walks the syntax tree itself instead of using the library's decoder, because
// that one stops at the first error and knows no nearest key.
type reader struct {
	file  string
	lines []string
	errs  []error
	// at is where each key of the file stands, and where its value does.
	at map[string]place
}

type place struct{ key, value *token.Token }

func parse(name, dir string, data []byte) (*Config, error) {
	r := &reader{
		file:  name,
		lines: strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"),
		at:    map[string]place{},
	}
	c := &Config{}
	if body := r.body(data); body != nil {
		r.value(body, reflect.ValueOf(c).Elem(), "", "", 0)
	}
	if len(r.errs) == 0 {
		c.complete(dir)
		r.check(c)
	}
	slices.SortStableFunc(r.errs, byPlace)
	if len(r.errs) > maxErrors {
		r.errs = append(r.errs[:maxErrors], fmt.Errorf("%s: %d more errors", name, len(r.errs)-maxErrors))
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return c, nil
}

// byPlace orders errors as they stand in the file.
func byPlace(a, b error) int {
	var x, y *Error
	if !errors.As(a, &x) || !errors.As(b, &y) {
		return 0
	}
	return cmp.Or(cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
}

// body returns the one document's value, or nil after an error.
func (r *reader) body(data []byte) ast.Node {
	tokens := lexer.Tokenize(string(data))
	if t := tooDeep(tokens); t != nil {
		r.fail(t, "", "nested too deep", "")
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			r.fail(syntax.GetToken(), "", "not YAML: "+syntax.GetMessage(), "")
		} else {
			r.fail(nil, "", "not YAML: "+err.Error(), "")
		}
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			r.fail(startOf(doc.Body), "", "a second document", `remove the "---" before it: a configuration is one document`)
			return nil
		}
		body = doc.Body
	}
	if body == nil {
		r.fail(nil, "", "the file is empty", "drydock config init writes a sample")
	}
	return body
}

// maxColumn is how far to the right a list may begin: 8 columns for each level.
const maxColumn = 8 * maxNesting

// tooDeep returns a token that is nested deeper than any value of a configuration, or
// nil. The parser takes memory and time with the square of the depth, 15 GB for 200 KB
// of dashes, and a backup's part of the configuration may be a stranger's.
func tooDeep(tokens token.Tokens) *token.Token {
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth = max(0, depth-1)
		case token.SequenceEntryType, token.MappingKeyType:
			if t.Position.Column > maxColumn {
				return t
			}
		}
		if depth > maxNesting {
			return t
		}
	}
	return nil
}

// value decodes node into v. key is the value's dotted path, tag the tag of
// the field that it is for.
func (r *reader) value(node ast.Node, v reflect.Value, key string, tag reflect.StructTag, depth int) {
	if depth > maxNesting {
		r.fail(startOf(node), key, "nested too deep", "")
		return
	}
	switch n := node.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		r.fail(node.GetToken(), key, "anchors, aliases and tags are not supported", "write the value out")
		return
	case *ast.NullNode:
		r.fail(n.GetToken(), key, "has no value", "give it one, or remove the key")
		return
	}
	if v.CanAddr() {
		if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
			r.text(node, u, key)
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.value(node, v.Elem(), key, tag, depth)
	case reflect.Struct:
		r.mapping(node, v, key, depth)
	case reflect.Map:
		r.named(node, v, key, depth)
	case reflect.Slice:
		r.sequence(node, v, key, depth)
	default:
		r.scalar(node, v, key, tag)
	}
}

// entries returns the pairs of a mapping, duplicates reported and left out.
func (r *reader) entries(node ast.Node, key string) []*ast.MappingValueNode {
	var pairs []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		r.fail(node.GetToken(), key, "must have keys, but is "+kindOf(node), `write "key: value" lines below it`)
		return nil
	}
	seen := map[string]int{}
	var kept []*ast.MappingValueNode
	for _, pair := range pairs {
		tok := pair.Key.GetToken()
		if pair.Key.IsMergeKey() {
			r.fail(tok, key, "merge keys are not supported", "write the values out")
			continue
		}
		if line, ok := seen[tok.Value]; ok {
			r.fail(tok, join(key, tok.Value), fmt.Sprintf("is there already in line %d", line), "remove one of the two")
			continue
		}
		seen[tok.Value] = tok.Position.Line
		r.at[join(key, tok.Value)] = place{key: tok, value: pair.Value.GetToken()}
		kept = append(kept, pair)
	}
	return kept
}

func (r *reader) mapping(node ast.Node, v reflect.Value, key string, depth int) {
	setDefaults(v)
	fields := fieldsOf(v.Type())
	given := map[string]bool{}
	unknown := false
	for _, pair := range r.entries(node, key) {
		tok := pair.Key.GetToken()
		index, ok := fields.index[tok.Value]
		if !ok {
			r.fail(tok, key, fmt.Sprintf("unknown key %q", tok.Value), fields.hint(tok.Value))
			unknown = true
			continue
		}
		given[tok.Value] = true
		r.value(pair.Value, v.FieldByIndex(index), join(key, tok.Value), fields.field(tok.Value).Tag, depth+1)
	}
	if unknown {
		return // a misspelt key is not reported a second time as missing
	}
	for _, name := range fields.names {
		if options(fields.field(name).Tag).required && !given[name] {
			r.fail(r.keyToken(key, node), key, fmt.Sprintf("the key %q is missing", name), "")
		}
	}
}

// named decodes a mapping whose keys are names that the user chose.
func (r *reader) named(node ast.Node, v reflect.Value, key string, depth int) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, pair := range r.entries(node, key) {
		name := pair.Key.GetToken().Value
		elem := reflect.New(v.Type().Elem()).Elem()
		r.value(pair.Value, elem, join(key, name), "", depth+1)
		v.SetMapIndex(reflect.ValueOf(name), elem)
	}
}

func (r *reader) sequence(node ast.Node, v reflect.Value, key string, depth int) {
	n, ok := node.(*ast.SequenceNode)
	if !ok {
		r.fail(startOf(node), key, "must be a list, but is "+kindOf(node), `write "[…]", or one "- …" line for each`)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Values), len(n.Values)))
	for i, item := range n.Values {
		itemKey := fmt.Sprintf("%s[%d]", key, i)
		r.at[itemKey] = place{key: item.GetToken(), value: item.GetToken()}
		r.value(item, v.Index(i), itemKey, "", depth+1)
	}
}

func (r *reader) scalar(node ast.Node, v reflect.Value, key string, tag reflect.StructTag) {
	wrong := func(want string) {
		hint := ""
		if v.Kind() == reflect.String && isScalar(node) {
			hint = "put it in quotes"
		}
		r.fail(node.GetToken(), key, fmt.Sprintf("must be %s, but is %s", want, kindOf(node)), hint)
	}
	switch v.Kind() {
	case reflect.String:
		s, ok := stringOf(node)
		if !ok {
			wrong("text")
			return
		}
		if s == "" {
			r.fail(node.GetToken(), key, "is empty", "give it a value, or remove the key")
			return
		}
		if enum := options(tag).enum; len(enum) > 0 && !slices.Contains(enum, s) {
			b := notOneOf(s, enum)
			r.fail(node.GetToken(), key, b.problem, b.hint)
			return
		}
		v.SetString(s)
	case reflect.Bool:
		n, ok := node.(*ast.BoolNode)
		if !ok {
			wrong("true or false")
			return
		}
		v.SetBool(n.Value)
	case reflect.Int:
		n, ok := node.(*ast.IntegerNode)
		if !ok {
			wrong("a whole number")
			return
		}
		i, err := strconv.ParseInt(n.GetToken().Value, 10, 32)
		if err != nil {
			r.fail(node.GetToken(), key, fmt.Sprintf("%s is not a number that fits", n.GetToken().Value), "")
			return
		}
		r.number(node, v, key, int(i), options(tag))
	}
}

func (r *reader) number(node ast.Node, v reflect.Value, key string, i int, o tagOptions) {
	switch {
	case o.minimum != nil && i < *o.minimum:
		r.fail(node.GetToken(), key, fmt.Sprintf("is %d, must be at least %d", i, *o.minimum), "")
	case o.maximum != nil && i > *o.maximum:
		r.fail(node.GetToken(), key, fmt.Sprintf("is %d, can be at most %d", i, *o.maximum), "")
	default:
		v.SetInt(int64(i))
	}
}

func (r *reader) text(node ast.Node, u encoding.TextUnmarshaler, key string) {
	s, ok := stringOf(node)
	if !ok && isScalar(node) {
		s = node.GetToken().Value // "120", and the hint is how to write it
	} else if !ok {
		r.fail(node.GetToken(), key, "must be one value, but is "+kindOf(node), "")
		return
	}
	if err := u.UnmarshalText([]byte(s)); err != nil {
		var bad *badValue
		if errors.As(err, &bad) {
			r.fail(node.GetToken(), key, bad.problem, bad.hint)
			return
		}
		r.fail(node.GetToken(), key, err.Error(), "")
	}
}

// fail reports a problem at tok, or at the start of the file.
func (r *reader) fail(tok *token.Token, key, problem, hint string) {
	e := &Error{File: r.file, Line: 1, Column: 1, Key: key, Problem: problem, Hint: hint}
	if tok != nil && tok.Position != nil {
		e.Line, e.Column = tok.Position.Line, tok.Position.Column
	}
	if e.Line >= 1 && e.Line <= len(r.lines) {
		e.Source = r.lines[e.Line-1]
	}
	r.errs = append(r.errs, e)
}

// startOf is the first token of a node: that of a mapping would be its first colon.
func startOf(node ast.Node) *token.Token {
	switch n := node.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return node.GetToken()
}

// keyToken is where to point for something that is missing below key.
func (r *reader) keyToken(key string, node ast.Node) *token.Token {
	if p, ok := r.at[key]; ok {
		return p.key
	}
	return startOf(node)
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

func isScalar(node ast.Node) bool {
	_, ok := node.(ast.ScalarNode)
	return ok
}

func stringOf(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	}
	return "", false
}

func kindOf(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	}
	return "something else"
}
