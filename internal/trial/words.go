package trial

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/drydock-vm/drydock/internal/escape"
)

const (
	// maxWords is how much of the end of a console is looked at, in bytes: what a
	// kernel prints when it panics.
	maxWords = 8 << 10
	// maxLines is how many lines of it an error shows.
	maxLines = 3
)

// lastWords adds the end of the console to an error.
func (t *trial) lastWords(err error, mark int64) error {
	path := t.machine.ConsolePath()
	f, oerr := os.Open(path)
	if oerr != nil {
		return err // it has printed nothing
	}
	defer f.Close()
	info, serr := f.Stat()
	if serr != nil || info.Size() <= mark {
		return err
	}
	from := max(mark, info.Size()-maxWords)
	text, rerr := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	if rerr != nil {
		return err
	}
	return fmt.Errorf("%w (its console ends with: %s; all of it is in %s)", err, words(string(text)), path)
}

// words are the lines that tell most of a console, as one safe line: the kernel's
// panic, if there is one, and the last ones.
func words(console string) string {
	lines := strings.FieldsFunc(console, func(r rune) bool { return r == '\n' || r == '\r' })
	tail := lines[max(0, len(lines)-maxLines):]
	var out []string
	for _, line := range lines[:len(lines)-len(tail)] {
		if strings.Contains(line, "Kernel panic") {
			out = []string{escape.Line(line)}
		}
	}
	for _, line := range tail {
		out = append(out, escape.Line(line))
	}
	return strings.Join(out, "; ")
}

// readError is of content that could not be read, and of what came of that.
func readError(failed, then error) error {
	if then == nil {
		return fmt.Errorf("%w: %w", ErrRead, failed)
	}
	return fmt.Errorf("%w: %w; %w", ErrRead, failed, then)
}
