package sandbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// Names are put in order whatever they have in common.
func TestSortNames(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, list := range map[string][]string{
		"none":                                 nil,
		"one":                                  {"a"},
		"nothing in common":                    {"b", "", "a", "\xff", "ab"},
		"a start in common":                    {"file number 00012.dat", "file number 00002.dat", "file number 0", "file number 00012.dat2"},
		"a long start that others differ from": {"z", "a long name that is the start of another 2", "a long name that is the start of another 1"},
		"the same name twice":                  {"same", "same", "other"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 {
				random.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
				names := make([][]byte, len(list))
				for i := range list {
					names[i] = []byte(list[i])
				}
				got := make([]string, len(list))
				o := new(ordering)
				o.sort(names, func(index, place int) { got[place] = list[index] })
				if want := slices.Sorted(slices.Values(list)); fmt.Sprint(got) != fmt.Sprint(want) || len(o.byName) != len(list) {
					t.Errorf("%q, want %q", got, want)
				}
			}
		})
	}
}
