package wire_test

import (
	"fmt"
	"testing"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// Each name is new once, however many there are.
func TestNameSet(t *testing.T) {
	for _, count := range []int{1, 24, 25, 100_000} {
		s := wire.NewNameSet()
		for _, isNew := range []bool{true, false} {
			for i := range count {
				if s.Add(fmt.Appendf(nil, "name %d", i)) != isNew {
					t.Fatalf("name %d of %d: new is not %v", i, count, isNew)
				}
			}
		}
	}
}
