package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var someID = Hash([]byte("x"))

// fullNode has every field, with everything that wants quoting.
func fullNode() Node {
	zone := time.FixedZone("", 3600)
	return Node{
		Name: "a \"name\"\t\xff späße <&>\u2028", Type: NodeFile, Mode: fs.ModeSetuid | 0o755,
		ModTime: time.Unix(1, 123456789).UTC(), AccessTime: time.Unix(2, 0).In(zone), ChangeTime: time.Unix(-3, 5).UTC(),
		UID: 1, GID: math.MaxUint32, User: "ro\"ot", Group: "wheel<>",
		Inode: math.MaxUint64, DeviceID: 2, Size: 3, Links: 2, LinkTarget: "to \xfe", Device: 259,
		Xattrs:     []Xattr{{Name: "user.a", Value: []byte{0, 255}}, {Name: "user.b", Value: []byte{}}, {Name: "user.nil"}},
		Content:    []ID{someID, {}},
		Attributes: map[string]json.RawMessage{"drydock.holes": json.RawMessage(`[ [0, 4096] ]`), "a": json.RawMessage(`"<"`)},
		Error:      "could not\nread",
	}
}

// reference encodes a node as restic does: with encoding/json.
func reference(t *testing.T, n Node) string {
	t.Helper()
	j := nodeJSON{
		Name: quoteName(n.Name), Type: n.Type, Mode: uint32(n.Mode),
		ModTime: n.ModTime, AccessTime: n.AccessTime, ChangeTime: n.ChangeTime,
		UID: n.UID, GID: n.GID, User: n.User, Group: n.Group, Inode: n.Inode, DeviceID: n.DeviceID,
		Size: n.Size, Links: n.Links, LinkTarget: n.LinkTarget, Xattrs: n.Xattrs, Attributes: n.Attributes,
		Device: n.Device, Content: n.Content, Subtree: n.Subtree, Error: n.Error,
	}
	if n.LinkTarget == fullNode().LinkTarget {
		j.LinkTargetRaw = []byte(n.LinkTarget)
	}
	out, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestEncodeTree(t *testing.T) {
	dir := Node{Name: "b", Type: NodeDir, Mode: fs.ModeDir | 0o700, ModTime: time.Unix(0, 0).UTC(), Subtree: &someID}
	empty := Node{Name: "c", Type: NodeFile, Content: []ID{}}
	nodes := []Node{fullNode(), dir, empty}
	var want []string
	for _, n := range nodes {
		want = append(want, reference(t, n))
	}
	got, err := EncodeTree(nodes)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"nodes":[`+strings.Join(want, ",")+"]}\n", string(got.Bytes())); diff != "" {
		t.Errorf("not as encoding/json has it (-want +got):\n%s", diff)
	}
	back, err := got.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	// JSON comes back as it was written: without space, and < escaped.
	nodes[0].Attributes = map[string]json.RawMessage{"drydock.holes": json.RawMessage(`[[0,4096]]`), "a": json.RawMessage(`"\u003c"`)}
	if diff := cmp.Diff(nodes, back); diff != "" {
		t.Errorf("came back as something else (-want +got):\n%s", diff)
	}
	if got, err := EncodeTree(nil); err != nil || string(got.Bytes()) != "{\"nodes\":[]}\n" {
		t.Errorf("no nodes: %q, %v", got.Bytes(), err)
	}
}

// Times that no calendar of four digits has are moved into it.
func TestEncodeTimes(t *testing.T) {
	for _, test := range []struct {
		sec  int64
		want string
	}{
		{math.MaxInt64 / 4, `"mtime":"9999-`},
		{-1 << 40, `"mtime":"0000-`},
		{0, `"mtime":"1970-01-01T00:00:00Z"`},
		{1<<34 - 1, `"mtime":"2514-05-30T01:53:03Z"`},
	} {
		tree, err := EncodeTree([]Node{{Name: "a", Type: NodeFIFO, ModTime: time.Unix(test.sec, 0).UTC()}})
		if err != nil || !bytes.Contains(tree.Bytes(), []byte(test.want)) {
			t.Errorf("%d seconds: %s, %v; want %s", test.sec, tree.Bytes(), err, test.want)
		}
		if _, err := tree.Nodes(); err != nil {
			t.Errorf("%d seconds: %v", test.sec, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	fifo := func(name string) Node { return Node{Name: name, Type: NodeFIFO} }
	for name, nodes := range map[string][]Node{
		"out of order": {fifo("b"), fifo("a")},
		"twice":        {fifo("a"), fifo("a")},
		"slash":        {fifo("a/b")},
		"dot dot":      {fifo("..")},
		"no name":      {fifo("")},
		"no subtree":   {{Name: "a", Type: NodeDir}},
		"no type":      {{Name: "a"}},
		"bad JSON":     {{Name: "a", Type: NodeFIFO, Attributes: map[string]json.RawMessage{"a": json.RawMessage("{")}}},
	} {
		if _, err := EncodeTree(nodes); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// An error leaves the encoder as it was.
	e := NewTreeEncoder()
	a, b, bad := fifo("a"), fifo("b"), fifo("/")
	for _, step := range []struct {
		n  *Node
		ok bool
	}{{&a, true}, {&bad, false}, {&a, false}, {&b, true}} {
		if err := e.Add(step.n); (err == nil) != step.ok {
			t.Errorf("%q: %v", step.n.Name, err)
		}
	}
	if nodes, err := e.Finish().Nodes(); err != nil || len(nodes) != 2 {
		t.Errorf("decoded %v, %v", nodes, err)
	}
}

// node returns the JSON of a node with a name as it stands in JSON.
func node(name, rest string) string {
	return fmt.Sprintf(`{"name":"%s","type":"fifo","mtime":"2020-01-01T00:00:00Z","uid":0,"gid":0,"content":null%s}`, name, rest)
}

func TestDecodeRefuses(t *testing.T) {
	for name, nodes := range map[string]string{
		"slash":              node("a/b", ""),
		"absolute":           node("/etc", ""),
		"escaped slash":      node(`a\\x2fb`, ""),
		"dot":                node(".", ""),
		"dot dot":            node("..", ""),
		"NUL":                node(`a\\x00`, ""),
		"raw NUL":            node(`a\u0000`, ""),
		"empty":              node("", ""),
		"bad quoting":        node(`\\xzz`, ""),
		"newline":            node(`a\n`, ""),
		"twice":              node("a", "") + "," + node("a", ""),
		"twice, by quoting":  node("a", "") + "," + node(`\\x61`, ""),
		"out of order":       node("b", "") + "," + node("a", ""),
		"order by bytes":     node("é", "") + "," + node("z", ""),
		"subtree of a FIFO":  node("a", `,"subtree":"`+someID.String()+`"`),
		"short ID":           node("a", `,"subtree":"00"`),
		"content of a FIFO":  strings.Replace(node("a", ""), "null", `["`+someID.String()+`"]`, 1),
		"folder, no subtree": strings.Replace(node("a", ""), "fifo", "dir", 1),
		"unknown type":       strings.Replace(node("a", ""), "fifo", "door", 1),
		"negative":           node("a", `,"size":-1`),
		"too large":          node("a", `,"inode":18446744073709551616`),
		"fraction":           node("a", `,"inode":1.5`),
		"bad time":           strings.Replace(node("a", ""), "2020", "20200", 1),
		"bad base64":         node("a", `,"extended_attributes":[{"name":"a","value":"*"}]`),
		"no node":            `7`,
		"null":               `null`,
		"empty object":       `{}`,
	} {
		for _, tree := range []string{`{"nodes":[` + nodes + "]}\n"} {
			got, err := decodeTree([]byte(tree))
			if !errors.Is(err, ErrDamaged) || got != nil {
				t.Errorf("%s: decoded %+v, %v", name, got, err)
			}
		}
	}
	for _, tree := range []string{
		"", "{", "[]", "null", `{"nodes":{}}`, `{"nodes":[]`, `{"nodes":[]}{}`, `{"nodes":[],"nodes":[]}`, `{"nodes":[` + node("a", "") + `}`,
		`{"nodes":` + strings.Repeat("[", 100_000),
	} {
		if _, err := decodeTree([]byte(tree)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%.80q: %v", tree, err)
		}
	}
}

func TestDecodeAccepts(t *testing.T) {
	for tree, want := range map[string]int{
		`{"nodes":null}`: 0,
		`{}`:             0,
		`{"future":{"a":[1]},"nodes":[` + node("a", `,"future":1`) + `]}`: 1,
		` { "nodes" : [ ] } `: 0,
	} {
		if nodes, err := decodeTree([]byte(tree)); err != nil || len(nodes) != want {
			t.Errorf("%s: %v, %v", tree, nodes, err)
		}
	}
}

func TestWalkStops(t *testing.T) {
	stop := errors.New("stop")
	calls := 0
	err := (&Tree{text: []byte(`{"nodes":[` + node("a", "") + "," + node("b", "") + "]}")}).Walk(func(*Node) error {
		calls++
		return stop
	})
	if err != stop || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestModes(t *testing.T) {
	for unix, want := range map[uint32]fs.FileMode{
		0o100644: 0o644,
		0o104755: fs.ModeSetuid | 0o755,
		0o102755: fs.ModeSetgid | 0o755,
		0o041777: fs.ModeDir | fs.ModeSticky | 0o777,
		0o120777: fs.ModeSymlink | 0o777,
		0o060660: fs.ModeDevice | 0o660,
		0o020620: fs.ModeDevice | fs.ModeCharDevice | 0o620,
		0o010600: fs.ModeNamedPipe | 0o600,
		0o140755: fs.ModeSocket | 0o755,
	} {
		if got := FileMode(unix); got != want {
			t.Errorf("%o became %v, want %v", unix, got, want)
		}
		if got := UnixMode(want); got != unix {
			t.Errorf("%v became %o, want %o", want, got, unix)
		}
	}
	if got := FileMode(0o170600); got != fs.ModeIrregular|0o600 {
		t.Errorf("a type that does not exist became %v", got)
	}
}
