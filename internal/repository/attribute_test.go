package repository_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
)

func TestHolesAreKeptAndRefused(t *testing.T) {
	const size = 100
	node := func(record string) *repository.Node {
		return &repository.Node{Name: "n", Size: size, Attributes: map[string]json.RawMessage{repository.AttributeHoles: json.RawMessage(record)}}
	}
	for _, holes := range [][]repository.Hole{
		nil, {{0, 100}}, {{0, 10}}, {{90, 10}}, {{0, 1}, {2, 3}, {50, 50}}, {{7, 1}},
	} {
		record := string(repository.EncodeHoles(holes))
		got, known, err := node(record).Holes()
		if err != nil || !known || !slices.Equal(got, holes) {
			t.Errorf("%v became %s, and %v, %v, %v", holes, record, got, known, err)
		}
	}
	if _, known, err := (&repository.Node{Size: size}).Holes(); known || err != nil {
		t.Errorf("without a record: %v, %v", known, err)
	}
	for record, want := range map[string]error{
		`{"version":1,"runs":[5]}`:                             repository.ErrDamaged,
		`{"version":1,"runs":[-1,5]}`:                          repository.ErrDamaged,
		`{"version":1,"runs":[5,0]}`:                           repository.ErrDamaged,
		`{"version":1,"runs":[5,-1]}`:                          repository.ErrDamaged,
		`{"version":1,"runs":[0,101]}`:                         repository.ErrDamaged,
		`{"version":1,"runs":[101,1]}`:                         repository.ErrDamaged,
		`{"version":1,"runs":[0,5,0,5]}`:                       repository.ErrDamaged,
		`{"version":1,"runs":[1,50,9223372036854775807,1]}`:    repository.ErrDamaged,
		`{"version":1,"runs":[1,9223372036854775807]}`:         repository.ErrDamaged,
		`{"version":1,"runs":[1,1e3]}`:                         repository.ErrDamaged,
		`{"version":0,"runs":[]}`:                              repository.ErrDamaged,
		`{"version":2,"runs":"other"}`:                         repository.ErrDamaged,
		`{"version":2,"runs":[]}`:                              repository.ErrUnknownVersion,
		`[]`:                                                   repository.ErrDamaged,
		`{"runs":[` + strings.Repeat("0,1,", 10<<20) + `1,1]}`: repository.ErrDamaged,
	} {
		if _, known, err := node(record).Holes(); known || !errors.Is(err, want) {
			t.Errorf("%.80s: %v, %.300v; want %v", record, known, err, want)
		}
	}
}

func TestOddXattrsHaveTheirPlace(t *testing.T) {
	plain, odd := repository.Xattr{Name: "user.b", Value: []byte("b")}, repository.Xattr{Name: "user.a\xff", Value: []byte{}}
	for kind, inside := range map[repository.NodeType]int{repository.NodeFile: 1, repository.NodeSymlink: 0} {
		n := repository.Node{Name: "n", Type: kind}
		n.SetXattrs([]repository.Xattr{plain, {Name: odd.Name}})
		tree, err := repository.EncodeTree([]repository.Node{n})
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := tree.Nodes()
		if err != nil || len(nodes) != 1 || len(nodes[0].Xattrs) != inside {
			t.Fatalf("%s: %v, %v", kind, nodes, err)
		}
		all, err := nodes[0].AllXattrs()
		same := func(a, b repository.Xattr) bool { return a.Name == b.Name && string(a.Value) == string(b.Value) }
		if err != nil || !slices.EqualFunc(all, []repository.Xattr{odd, plain}, same) {
			t.Errorf("%s: %v, %v", kind, all, err)
		}
	}
	bad := repository.Node{Name: "n", Attributes: map[string]json.RawMessage{
		repository.AttributeXattrs: json.RawMessage(`[{"name":1}]`), repository.AttributeFlags: json.RawMessage(`{"a":1}`),
	}}
	if _, err := bad.AllXattrs(); !errors.Is(err, repository.ErrDamaged) {
		t.Errorf("error %v", err)
	}
	if flags := bad.Flags(); flags != nil {
		t.Errorf("flags %q", flags)
	}
	bad.Attributes[repository.AttributeFlags] = repository.EncodeFlags([]string{"nodump", "immutable"})
	if flags := bad.Flags(); !slices.Equal(flags, []string{"nodump", "immutable"}) {
		t.Errorf("flags %q", flags)
	}
}
