package repository

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// plainNodes are the texts of nodes, as they are without their content.
func plainNodes(t testing.TB) (texts [][]byte) {
	t.Helper()
	full := fullNode()
	full.Content = nil
	for _, n := range []Node{
		full,
		{Name: "z", Type: NodeDir, Subtree: &someID, ModTime: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))},
		{Name: "späße \\ \xff", Type: NodeSymlink, LinkTarget: "to"},
	} {
		text, _, err := appendNode(nil, &n)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	return texts
}

// sameAsJSON fails unless a text that is taken for plain is the same node as JSON.
func sameAsJSON(t testing.TB, text []byte) (plain bool) {
	t.Helper()
	got, plain := plainNode(text)
	if !plain {
		return false
	}
	var j nodeJSON
	if err := json.Unmarshal(text, &j); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, text)
	}
	want, err := j.node(nil, 0)
	if (err == nil) != (got.validate() == nil) || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v\nas JSON\n%+v, %v\n%s", got, want, err, text)
	}
	return true
}

// TestPlainNode: what is written here and by restic is plain, and what is a little
// otherwise is not, or the same.
func TestPlainNode(t *testing.T) {
	for _, text := range plainNodes(t) {
		if !sameAsJSON(t, text) {
			t.Errorf("not plain: %s", text)
		}
		for n := range text {
			sameAsJSON(t, text[:n])
			for _, c := range []byte(` "\\0{}[],:x` + "\n\x00\xff") {
				odd := bytes.Clone(text)
				odd[n] = c
				sameAsJSON(t, odd)
				sameAsJSON(t, append(append(bytes.Clone(text[:n]), c), text[n:]...))
			}
		}
	}
	for _, odd := range []string{"", "{}", `{"name":"a","type":"file","uid":4294967296}`, `{"name":"a"}`} {
		if sameAsJSON(t, []byte(odd)) {
			t.Errorf("plain: %s", odd)
		}
	}
}

func FuzzPlainNode(f *testing.F) {
	for _, text := range plainNodes(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) { sameAsJSON(t, text) })
}
