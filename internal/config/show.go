package config

import (
	_ "embed"
	"fmt"

	"github.com/goccy/go-yaml"
)

// The JSON Schema of the file, generated from the structs by the tests of this
// package (go test -run Schema -update).
//
//go:embed drydock.schema.json
var schema []byte

//go:embed sample.yaml
var sample []byte

// Schema returns the JSON Schema (draft 2020-12) of the configuration file.
func Schema() []byte { return append([]byte(nil), schema...) }

// Sample returns the commented configuration that "drydock config init"
// writes. It is a valid configuration.
func Sample() []byte { return append([]byte(nil), sample...) }

// Show returns the configuration as YAML with every default filled in. Parsing
// it gives the same configuration.
func (c *Config) Show() ([]byte, error) {
	out, err := yaml.MarshalWithOptions(c, yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return nil, fmt.Errorf("write the configuration as YAML: %w", err)
	}
	return out, nil
}
