package sandbox

import (
	"testing"
)

func TestProbe(t *testing.T) {
	list, err := Probe(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != len(Measures()) {
		t.Fatalf("%d measures, want %d", len(list), len(Measures()))
	}
	for i, m := range list {
		t.Logf("%s: %v: %s", m.Name, m.OK, m.Detail)
		if m.Name != Measures()[i] || !m.OK || m.Detail == "" {
			t.Errorf("measure %d is %+v, want %s in force", i, m, Measures()[i])
		}
	}
}
