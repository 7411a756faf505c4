package config_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	generator "github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/drydock-vm/drydock/internal/config"
)

var update = flag.Bool("update", false, "write the schema and the expected errors anew")

// schemaFiles are the copy that the binary carries and the one that is
// published.
var schemaFiles = []string{"drydock.schema.json", "../../docs/drydock.schema.json"}

// generate makes the schema from the structs, their comments and their tags.
func generate(t *testing.T) []byte {
	t.Helper()
	r := &generator.Reflector{
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		Anonymous:                  true,
		ExpandedStruct:             true,
		Mapper:                     mapScalars,
	}
	// The module's path, so that the names of the types in it are complete.
	if err := r.AddGoComments("github.com/drydock-vm/drydock/internal/config", "."); err != nil {
		t.Fatal(err)
	}
	for name, comment := range r.CommentMap {
		r.CommentMap[name] = strings.Join(strings.Fields(comment), " ")
	}
	s := r.Reflect(&config.Config{})
	s.Title = "drydock.yaml"
	s.Description = "The configuration of drydock: the virtual machines of a host, and what a round does with them."
	refine(s)
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// mapScalars describes the types that are written as text of a form of theirs.
func mapScalars(t reflect.Type) *generator.Schema {
	switch t {
	case reflect.TypeFor[config.Duration]():
		return &generator.Schema{Type: "string", Pattern: `^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h)((([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))*)$|^0$`}
	case reflect.TypeFor[config.Size]():
		return &generator.Schema{Type: "string", Pattern: `^[0-9]+ ?([KMGT]iB|B)$`}
	case reflect.TypeFor[config.Span]():
		return &generator.Schema{Type: "string", Pattern: `^([0-9]{1,6}[ymdh])([0-9]{1,6}m)?([0-9]{1,6}d)?([0-9]{1,6}h)?$`}
	case reflect.TypeFor[config.Layer]():
		s := &generator.Schema{Type: "string"}
		for _, l := range config.Layers() {
			s.Enum = append(s.Enum, string(l))
		}
		return s
	}
	return nil
}

// refine adds what holds between keys, as far as a schema can say it.
func refine(s *generator.Schema) {
	one := uint64(1)
	names := func(s *generator.Schema, key, pattern string) {
		p, _ := s.Properties.Get(key)
		p.PropertyNames = &generator.Schema{Pattern: pattern}
	}
	names(s, "vms", `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	names(s, "images", `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	vms, _ := s.Properties.Get("vms")
	vms.MinProperties = &one
	vm, disk, probe := s.Definitions["VM"], s.Definitions["Disk"], s.Definitions["Probe"]
	names(vm, "disks", `^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	disks, _ := vm.Properties.Get("disks")
	disks.MinProperties = &one

	require := func(keys ...string) *generator.Schema { return &generator.Schema{Required: keys} }
	without := func(keys ...string) *generator.Schema {
		s := &generator.Schema{}
		for _, key := range keys {
			s.AnyOf = append(s.AnyOf, require(key))
		}
		return &generator.Schema{Not: s}
	}
	has := func(key string, value any) *generator.Schema {
		s := &generator.Schema{Properties: generator.NewProperties(), Required: []string{key}}
		s.Properties.Set(key, &generator.Schema{Const: value})
		return s
	}
	vm.AllOf = []*generator.Schema{
		{If: has("driver", "qemu"), Then: &generator.Schema{AllOf: []*generator.Schema{require("command"), without("unit", "qmp", "domain", "socket", "console")}}},
		{If: has("driver", "systemd"), Then: &generator.Schema{AllOf: []*generator.Schema{require("unit"), without("command", "domain", "socket")}}},
		{If: has("driver", "libvirt"), Then: &generator.Schema{AllOf: []*generator.Schema{require("domain"), without("command", "unit", "qmp")}}},
	}
	probe.OneOf = []*generator.Schema{require("tcp"), require("http"), require("console"), has("active", true)}
	probe.AllOf = []*generator.Schema{{AnyOf: []*generator.Schema{require("http"), without("status", "text")}}}
	disk.AllOf = []*generator.Schema{
		{AnyOf: []*generator.Schema{require("mount"), has("backup", "off"), has("backup", "image")}},
		{If: &generator.Schema{AnyOf: []*generator.Schema{has("backup", "off"), has("backup", "image")}}, Then: without("include", "exclude", "exclude_caches", "exclude_nodump", "exclude_larger_than")},
		{If: require("free_space"), Then: has("backup", "image")},
		{If: has("dirty_bitmap", true), Then: &generator.Schema{AllOf: []*generator.Schema{has("backup", "image"), has("format", "qcow2")}}},
		{If: require("backing"), Then: &generator.Schema{AllOf: []*generator.Schema{has("format", "qcow2"), without("image")}}},
	}
}

func TestSchemaIsUpToDate(t *testing.T) {
	want := generate(t)
	for _, file := range schemaFiles {
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the structs say, %v (go test ./internal/config -run Schema -update)", file, err)
		}
	}
	if !*update && !bytes.Equal(config.Schema(), want) {
		t.Error("the binary carries another schema")
	}
}

// validate asks the schema about a YAML file.
func validate(t *testing.T, data []byte) error {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(generate(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("drydock.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("drydock.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		return err
	}
	value, err := validator.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}
