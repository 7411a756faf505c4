package config

import (
	"encoding"
	"reflect"
	"strings"
	"testing"
)

// Each default in a tag is a value of its field, and each limit a number: the
// reader relies on it.
func TestTags(t *testing.T) {
	for _, typ := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[Repository](), reflect.TypeFor[Sandbox](), reflect.TypeFor[VM](),
		reflect.TypeFor[Health](), reflect.TypeFor[Probe](), reflect.TypeFor[Builder](), reflect.TypeFor[Disk](),
		reflect.TypeFor[Backing](), reflect.TypeFor[Image](), reflect.TypeFor[Retain](), reflect.TypeFor[Prune](),
		reflect.TypeFor[Verify](), reflect.TypeFor[Writer](), reflect.TypeFor[Copy](),
	} {
		for i := range typ.NumField() {
			field := typ.Field(i)
			o := options(field.Tag)
			tag := field.Tag.Get("jsonschema")
			if (o.minimum == nil) == strings.Contains(tag, "minimum=") || (o.maximum == nil) == strings.Contains(tag, "maximum=") {
				t.Errorf("%s.%s has a limit that is no number: %s", typ.Name(), field.Name, tag)
			}
			if o.def == "" {
				continue
			}
			v := reflect.New(field.Type)
			if u, ok := v.Interface().(encoding.TextUnmarshaler); ok {
				if err := u.UnmarshalText([]byte(o.def)); err != nil {
					t.Errorf("%s.%s: %v", typ.Name(), field.Name, err)
				}
			} else if field.Type.Kind() == reflect.Int && number(o.def) == nil {
				t.Errorf("%s.%s has the default %q, which is no number", typ.Name(), field.Name, o.def)
			}
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"driver", "disks", "command", "shutdown_timeout"}
	for word, want := range map[string]string{
		"drvier": "driver", "disk": "disks", "Command": "command", "shutdown-timeout": "shutdown_timeout", "zzz": "", "": "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
	if d := editDistance("kitten", "sitting"); d != 3 {
		t.Errorf("from kitten to sitting it is %d", d)
	}
	if d := editDistance("ab", "ba"); d != 1 {
		t.Errorf("from ab to ba it is %d", d)
	}
}
