package config

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/drydock-vm/drydock/internal/location"
)

// Part is one VM's part of a configuration: what [Config.ShowVM] writes.
type Part struct {
	vm     string
	config *Config // with a repository that means nothing
}

// anyRepository makes a part a whole configuration.
const anyRepository = "repository: {path: /nowhere}\n"

// ParsePart checks a VM's part of a configuration as strictly as all of it. name
// stands in errors.
func ParsePart(name, vm string, text []byte) (*Part, error) {
	c, err := parse(name, "/", append([]byte(anyRepository), text...))
	if err != nil {
		return nil, err
	}
	if len(c.VMs) != 1 || c.VMs[vm] == nil {
		return nil, fmt.Errorf("%s: it is not the part of %s alone", name, vm)
	}
	return &Part{vm, c}, nil
}

// VM is the VM that the part is of.
func (p *Part) VM() *VM { return p.config.VMs[p.vm] }

// NewRepository returns the settings of a repository, with every default. Relative
// paths start at the current folder, and are absolute in what it returns: the file that
// the settings come into lies elsewhere.
func NewRepository(path, passwordFile, credentialsFile string) (Repository, error) {
	r := Repository{}
	setDefaults(reflect.ValueOf(&r).Elem())
	r.Path, r.PasswordFile, r.CredentialsFile = path, passwordFile, credentialsFile
	l, err := location.Parse(path)
	if err != nil {
		return r, err
	}
	if l.Password != "" {
		return r, errors.New("it has a password in it (give that in a file of credentials)")
	}
	paths := []*string{&r.PasswordFile, &r.CredentialsFile}
	if l.Kind == location.Local {
		r.Path = l.Path
		paths = append(paths, &r.Path)
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return r, err
		}
	}
	return r, nil
}

// File returns a configuration of the part alone, with that folder of state and that
// repository.
func (p *Part) File(state string, repository Repository) ([]byte, error) {
	head, err := yaml.MarshalWithOptions(struct {
		State      string     `yaml:"state"`
		Repository Repository `yaml:"repository"`
	}{state, repository}, yaml.IndentSequence(true))
	if err != nil {
		return nil, err
	}
	part, err := p.config.ShowVM(p.vm)
	if err != nil {
		return nil, err
	}
	text := append(head, part...)
	_, err = Parse("/the new configuration", text)
	return text, err
}

// Empty returns the defaults of a host that has no configuration: nothing is in it.
func Empty() *Config {
	c := &Config{}
	setDefaults(reflect.ValueOf(c).Elem())
	return c
}

// ErrMerge is of a configuration that a VM cannot be added to.
var ErrMerge = errors.New("the VM cannot be added to it")

// Merge returns the configuration data, the content of a file called name, with the
// part added to it. All else stays as it is, comments included. A configuration that
// has the VM already is returned as it is, and false.
func (p *Part) Merge(name string, data []byte) ([]byte, bool, error) {
	before, err := Parse(name, data)
	if err != nil {
		return nil, false, err
	}
	if before.VMs[p.vm] != nil {
		return data, false, nil
	}
	text, err := p.config.ShowVM(p.vm)
	if err != nil {
		return nil, false, err
	}
	out, err := insert(data, "vms", children(text, "vms"))
	for image := range p.config.Images {
		if err == nil && before.Images[image] == nil {
			out, err = insert(out, "images", childOf(children(text, "images"), image))
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w: %w", name, ErrMerge, err)
	}
	after, err := Parse(name, out)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w: %w", name, ErrMerge, err)
	}
	if !reflect.DeepEqual(after, p.addTo(before)) {
		return nil, false, fmt.Errorf("%s: %w: it would change more than that (add the VM by hand)", name, ErrMerge)
	}
	return out, true, nil
}

// addTo adds the part to a configuration.
func (p *Part) addTo(c *Config) *Config {
	c.VMs[p.vm] = p.config.VMs[p.vm]
	for name, image := range p.config.Images {
		if c.Images[name] == nil {
			c.Images[name] = image
		}
	}
	return c
}

// children returns the lines below a key at the left margin, which begin with two
// spaces, in what this package has written.
func children(text []byte, key string) []string {
	var out []string
	in := false
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, " ") {
			in = line == key+":\n"
			continue
		}
		if in {
			out = append(out, line)
		}
	}
	return out
}

// childOf returns the lines of one of several children.
func childOf(lines []string, name string) []string {
	var out []string
	in := false
	for _, line := range lines {
		if !strings.HasPrefix(line, "   ") {
			in = strings.TrimSpace(line) == name+":"
		}
		if in {
			out = append(out, line)
		}
	}
	return out
}

// insert puts lines, which begin with two spaces, below a key at the left margin.
func insert(data []byte, key string, lines []string) ([]byte, error) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, err
	}
	if len(file.Docs) != 1 {
		return nil, errors.New("it has several documents")
	}
	at, indent, err := below(file.Docs[0].Body, key)
	if err != nil {
		return nil, err
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(bytes.Clone(data), '\n')
	}
	all := strings.SplitAfter(string(data), "\n")
	if at == 0 {
		all = append(all[:len(all)-1], key+":\n")
		at, indent = len(all), 2
	}
	var out strings.Builder
	for _, line := range all[:at] {
		out.WriteString(line)
	}
	for _, line := range lines {
		out.WriteString(strings.Repeat(" ", indent) + strings.TrimPrefix(line, "  "))
	}
	for _, line := range all[at:] {
		out.WriteString(line)
	}
	return []byte(out.String()), nil
}

// below returns the line behind which the children of a key begin, and how far they
// are indented; 0 where there is no such key.
func below(body ast.Node, key string) (line, indent int, err error) {
	top, ok := body.(*ast.MappingNode)
	if !ok || top.IsFlowStyle {
		return 0, 0, errors.New("it is not written as lines of KEY: VALUE")
	}
	for _, v := range top.Values {
		if v.Key.GetToken().Value != key {
			continue
		}
		inner, ok := v.Value.(*ast.MappingNode)
		if !ok || inner.IsFlowStyle || len(inner.Values) == 0 {
			return 0, 0, fmt.Errorf("what is below %s: is not written as lines of its own (write it so, or add the VM by hand)", key)
		}
		return v.Key.GetToken().Position.Line, inner.Values[0].Key.GetToken().Position.Column - 1, nil
	}
	return 0, 0, nil
}
