//go:build linux

package unit

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable reports whether s can be in a unit file at all: a line break would
// end its setting and begin another one.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// quote makes s one word of a command line, as systemd.service(5), "COMMAND
// LINES", has it, for a place where "$" means nothing.
var quote = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`)

// program makes s the first word of a command line. Variables are not replaced
// there.
func program(s string) string { return `"` + quote.Replace(s) + `"` }

// argument makes s one of the words after that.
func argument(s string) string {
	return `"` + strings.ReplaceAll(quote.Replace(s), "$", "$$") + `"`
}

// words joins the names of units, each once, in an order that does not depend
// on how they were given.
func words(names []string, more string) string {
	names = slices.Clone(names)
	if more != "" {
		names = append(names, more)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}
