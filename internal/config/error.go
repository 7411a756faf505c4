package config

import (
	"fmt"
	"strings"
)

// Error is one thing that is wrong with a configuration.
type Error struct {
	File         string
	Line, Column int    // from 1
	Source       string // the line
	Key          string // "vms.web.disks.root.path"; may be empty
	Problem      string
	Hint         string // the likely fix; may be empty
}

// Error is several lines: the place and the problem, then the line of the file
// with a caret below the column.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Key != "" {
		fmt.Fprintf(&b, "%s: ", e.Key)
	}
	b.WriteString(e.Problem)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	if e.Source != "" {
		// The caret goes below the column whatever a terminal makes of a tab:
		// the tabs before it are repeated.
		var pad strings.Builder
		for i, r := range []rune(e.Source) {
			if i >= e.Column-1 {
				break
			}
			if r != '\t' {
				r = ' '
			}
			pad.WriteRune(r)
		}
		fmt.Fprintf(&b, "\n%6d | %s\n       | %s^", e.Line, e.Source, pad.String())
	}
	return b.String()
}

// nearest returns the name that is closest to word, or "" if none is close.
func nearest(word string, names []string) string {
	best, bestDistance := "", 1+max(2, len(word)/3)
	for _, name := range names {
		if d := editDistance(strings.ToLower(word), name); d < bestDistance && d < len(name) {
			best, bestDistance = name, d
		}
	}
	return best
}

// editDistance is the number of letters to insert, remove, replace or swap with
// their neighbour to make a into b.
func editDistance(a, b string) int {
	prev2, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev, row = prev, row, prev2
	}
	return prev[len(b)]
}
