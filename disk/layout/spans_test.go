package layout

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSpans compares what is made of lists of spans with what is made of their bytes.
func TestSpans(t *testing.T) {
	const bytes = 40
	random := rand.New(rand.NewPCG(3, 4))
	some := func() (list []span, set [bytes]bool) {
		for range random.IntN(5) {
			s := span{start: random.Int64N(bytes)}
			s.end = s.start + 1 + random.Int64N(min(12, bytes-s.start))
			list = append(list, s)
			for i := s.start; i < s.end; i++ {
				set[i] = true
			}
		}
		return list, set
	}
	// spans are those of a set, as few as there can be.
	spans := func(set [bytes]bool) (list []span) {
		for i := int64(0); i < bytes; i++ {
			if !set[i] {
				continue
			}
			if n := len(list); n > 0 && list[n-1].end == i {
				list[n-1].end++
			} else {
				list = append(list, span{i, i + 1})
			}
		}
		return list
	}
	for range 20_000 {
		list, set := some()
		minus, less := some()
		given := slices.Clone(list)
		list, minus = joined(list), joined(minus)
		if want := spans(set); !slices.Equal(list, want) {
			t.Fatalf("%v joined are %v, want %v", given, list, want)
		}
		for i := range set {
			set[i] = set[i] && !less[i]
		}
		if got, want := without(list, minus), spans(set); !slices.Equal(got, want) {
			t.Fatalf("%v without %v are %v, want %v", list, minus, got, want)
		}
	}
}
