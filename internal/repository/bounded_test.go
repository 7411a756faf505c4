package repository

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Lists of nothing do not become lists in memory.
func TestNodesAreBounded(t *testing.T) {
	file := func(fields string) []byte {
		return []byte(`{"nodes":[{"name":"f","type":"file",` + fields + `}]}`)
	}
	var keys []string
	for i := range maxMembers + 1 {
		keys = append(keys, fmt.Sprintf(`"%d":0`, i))
	}
	if _, err := decodeTree([]byte("{" + strings.Join(keys, ",") + `,"nodes":[]}`)); !errors.Is(err, ErrLimit) {
		t.Errorf("endless keys beside the nodes: %v", err)
	}
	if err := decodeIndex(strings.NewReader("{"+strings.Join(keys, ",")+`,"packs":[]}`), nil); !errors.Is(err, ErrLimit) {
		t.Errorf("endless keys in an index: %v", err)
	}
	null := strings.Repeat("null,", 100)
	for name, c := range map[string]struct {
		fields string
		want   error
	}{
		"blobs of null":     {`"content":[` + null + `null]`, ErrDamaged},
		"short IDs":         {`"content":["00","00"]`, ErrDamaged},
		"a comma at first":  {`"content":[,` + someID.String() + `]`, ErrDamaged},
		"no array":          {`"content":{}`, ErrDamaged},
		"a number":          {`"content":["` + someID.String() + `",1]`, ErrDamaged},
		"endless xattrs":    {`"extended_attributes":[` + strings.Repeat("{},", maxXattrs) + `{}]`, ErrLimit},
		"endless keys":      {`"generic_attributes":{` + strings.Join(keys, ",") + `}`, ErrLimit},
		"keys twice":        {`"generic_attributes":{"a":1,"a":2}`, ErrDamaged},
		"xattrs, no object": {`"extended_attributes":[1]`, ErrDamaged},
	} {
		if nodes, err := decodeTree(file(c.fields)); !errors.Is(err, c.want) {
			t.Errorf("%s: %d nodes, %v", name, len(nodes), err)
		}
	}
	id := `"` + someID.String() + `"`
	for content, want := range map[string][]ID{
		"null": nil, "[]": {}, "[" + id + "]": {someID}, " [ " + id + " ,\n" + id + " ] ": {someID, someID},
	} {
		nodes, err := decodeTree(file(`"content":` + content + `,"extended_attributes":null,"generic_attributes":null`))
		if err != nil || !slices.Equal(nodes[0].Content, want) || (nodes[0].Content == nil) != (want == nil) {
			t.Errorf("%q: %v, %v", content, nodes, err)
		}
	}
	if _, err := decodeSnapshot(append([]byte(`{"paths":["`), make([]byte, maxSnapshotSize)...)); !errors.Is(err, ErrLimit) {
		t.Errorf("an endless snapshot: %v", err)
	}
}
