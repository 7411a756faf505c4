package config

import (
	"encoding"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

// fieldSet is the keys of one struct.
type fieldSet struct {
	names []string         // in the order of the struct
	index map[string][]int // of the field, by key
	typ   reflect.Type
}

// fieldsOf returns the keys of a struct, those of embedded structs among them.
func fieldsOf(t reflect.Type) fieldSet {
	f := fieldSet{index: map[string][]int{}, typ: t}
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if name == "-" || field.Anonymous {
			continue
		}
		f.names = append(f.names, name)
		f.index[name] = field.Index
	}
	return f
}

// field returns the field of a key that there is.
func (f fieldSet) field(name string) reflect.StructField { return f.typ.FieldByIndex(f.index[name]) }

// hint says what an unknown key may have been meant for: a key one level
// deeper, or one with a similar name.
func (f fieldSet) hint(unknown string) string {
	for _, name := range f.names {
		t := f.field(name).Type
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			continue
		}
		if _, ok := fieldsOf(t).index[unknown]; ok {
			return fmt.Sprintf("it belongs below %q", name+":")
		}
	}
	if near := nearest(unknown, f.names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	known := append([]string(nil), f.names...)
	sort.Strings(known)
	return "known are " + strings.Join(known, ", ")
}

// tagOptions is what a field's jsonschema tag says. The schema is generated
// from the same tags, so that it and the reader cannot disagree.
type tagOptions struct {
	required         bool
	enum             []string
	def              string
	minimum, maximum *int
}

func options(tag reflect.StructTag) tagOptions {
	var o tagOptions
	for _, part := range strings.Split(tag.Get("jsonschema"), ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "required":
			o.required = true
		case "enum":
			o.enum = append(o.enum, value)
		case "default":
			o.def = value
		case "minimum":
			o.minimum = number(value)
		case "maximum":
			o.maximum = number(value)
		}
	}
	return o
}

// number reads a number in a tag; a test reads every tag.
func number(s string) *int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil
	}
	return &n
}

// setDefaults fills the defaults that the tags of v's fields and of the structs
// in it name.
func setDefaults(v reflect.Value) {
	for i := range v.NumField() {
		field := v.Field(i)
		def := options(v.Type().Field(i).Tag).def
		if field.Kind() == reflect.Struct {
			setDefaults(field)
		}
		if def == "" {
			continue
		}
		if u, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
			// A test parses every default.
			_ = u.UnmarshalText([]byte(def))
			continue
		}
		switch field.Kind() {
		case reflect.String:
			field.SetString(def)
		case reflect.Int:
			if n := number(def); n != nil {
				field.SetInt(int64(*n))
			}
		}
	}
}
