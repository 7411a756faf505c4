package build_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drydock-vm/drydock/internal/build"
)

func hexDigest(c string) string { return strings.Repeat(c, 64) }

func goodManifest() build.Manifest {
	image := func(name string) build.Image {
		return build.Image{
			Name: name, Version: "20261124-030000-abcdef012345", File: name + "/20261124-030000-abcdef012345.raw",
			Format: build.FormatRaw, Size: 64 << 20, SHA256: hexDigest("a"),
			OCIDigest: "sha256:" + hexDigest("b"), InputDigest: "sha256:" + hexDigest("c"),
		}
	}
	return build.Manifest{
		Version: build.FormatVersion, BuildID: "night-1", SpecDigest: "sha256:" + hexDigest("d"),
		FinishedAt: time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC),
		Images:     []build.Image{image("db"), image("web")}, Log: "log/night-1.txt",
	}
}

func marshal(t testing.TB, m build.Manifest) []byte {
	t.Helper()
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestManifestRoundTrip(t *testing.T) {
	want := goodManifest()
	got, err := build.ReadManifest(bytes.NewReader(marshal(t, want)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A value that a hostile builder may give to a field is refused, and the error
// names the field.
func TestManifestRefusesValues(t *testing.T) {
	tests := map[string]struct {
		change func(*build.Manifest)
		field  string
	}{
		"another version":        {func(m *build.Manifest) { m.Version = 2 }, "version"},
		"no build":               {func(m *build.Manifest) { m.BuildID = "" }, "build_id"},
		"path as build":          {func(m *build.Manifest) { m.BuildID = "../x" }, "build_id"},
		"line end in build":      {func(m *build.Manifest) { m.BuildID = "x\n" }, "build_id"},
		"short spec digest":      {func(m *build.Manifest) { m.SpecDigest = "sha256:ab" }, "spec_digest"},
		"upper-case spec digest": {func(m *build.Manifest) { m.SpecDigest = "sha256:" + hexDigest("A") }, "spec_digest"},
		"time zone":              {func(m *build.Manifest) { m.FinishedAt = m.FinishedAt.In(time.FixedZone("x", 60)) }, "finished_at"},
		"no time":                {func(m *build.Manifest) { m.FinishedAt = time.Time{} }, "finished_at"},
		"log elsewhere":          {func(m *build.Manifest) { m.Log = "/etc/passwd" }, "log"},
		"no images":              {func(m *build.Manifest) { m.Images = nil }, "images"},
		"too many images":        {func(m *build.Manifest) { m.Images = make([]build.Image, 257) }, "images"},
		"image twice":            {func(m *build.Manifest) { m.Images[0] = m.Images[1] }, "images"},
		"images unsorted":        {func(m *build.Manifest) { m.Images[0], m.Images[1] = m.Images[1], m.Images[0] }, "images"},
		"name is a path":         {func(m *build.Manifest) { m.Images[0].Name = "a/b" }, "name"},
		"name is hidden":         {func(m *build.Manifest) { m.Images[0].Name = ".installed" }, "name"},
		"name is too long":       {func(m *build.Manifest) { m.Images[0].Name = strings.Repeat("a", 64) }, "name"},
		"version is parent":      {func(m *build.Manifest) { m.Images[0].Version = ".." }, "db: version"},
		"file is absolute":       {func(m *build.Manifest) { m.Images[0].File = "/dev/sda" }, "db: file"},
		"file escapes":           {func(m *build.Manifest) { m.Images[0].File = "db/../../x.raw" }, "db: file"},
		"file of another image":  {func(m *build.Manifest) { m.Images[0].File = m.Images[1].File }, "db: file"},
		"qcow2":                  {func(m *build.Manifest) { m.Images[0].Format = "qcow2" }, "db: format"},
		"no size":                {func(m *build.Manifest) { m.Images[0].Size = 0 }, "db: size"},
		"negative size":          {func(m *build.Manifest) { m.Images[0].Size = -512 }, "db: size"},
		"half a sector":          {func(m *build.Manifest) { m.Images[0].Size += 256 }, "db: size"},
		"huge size":              {func(m *build.Manifest) { m.Images[0].Size = 1 << 60 }, "db: size"},
		"sum with algorithm":     {func(m *build.Manifest) { m.Images[0].SHA256 = "sha256:" + hexDigest("a") }, "db: sha256"},
		"no OCI digest":          {func(m *build.Manifest) { m.Images[0].OCIDigest = "" }, "db: oci_digest"},
		"no input digest":        {func(m *build.Manifest) { m.Images[0].InputDigest = "" }, "db: input_digest"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := goodManifest()
			test.change(&m)
			_, err := m.Marshal()
			var wrong *build.FormatError
			if !errors.As(err, &wrong) || wrong.Field != test.field {
				t.Errorf("%v, and not an error of %s", err, test.field)
			}
		})
	}
}

// There is one spelling of each manifest.
func TestManifestRefusesSpellings(t *testing.T) {
	good := string(marshal(t, goodManifest()))
	tests := map[string]string{
		"empty":               "",
		"cut":                 good[:len(good)/2],
		"null":                "null\n",
		"another object":      good + "{}",
		"no line end":         strings.TrimSpace(good),
		"unknown field":       strings.Replace(good, "{", `{ "extra": 1,`, 1),
		"upper-case field":    strings.Replace(good, `"build_id"`, `"BUILD_ID"`, 1),
		"field twice":         strings.Replace(good, `"build_id"`, `"build_id": "night-2", "build_id"`, 1),
		"other layout":        strings.ReplaceAll(good, "  ", "\t"),
		"escaped name":        strings.Replace(good, "night-1", `\u006eight-1`, 1),
		"number as a text":    strings.Replace(good, `"version": 1`, `"version": "1"`, 1),
		"number with a dot":   strings.Replace(good, `"version": 1`, `"version": 1.0`, 1),
		"over the size":       good + strings.Repeat(" ", 1<<20),
		"deep nesting":        strings.Repeat("[", 100_000),
		"time with an offset": strings.Replace(good, "03:00:00Z", "04:00:00+01:00", 1),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := build.ReadManifest(strings.NewReader(text))
			var wrong *build.FormatError
			if !errors.As(err, &wrong) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Whatever is accepted marshals to the same bytes again, and names no path
// outside of its own folder.
func FuzzParseManifest(f *testing.F) {
	good := marshal(f, goodManifest())
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("db/"), []byte("../"), 1))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := build.ParseManifest(data)
		if err != nil {
			return
		}
		if again := marshal(t, m); !bytes.Equal(again, data) {
			t.Errorf("%q came back as %q", data, again)
		}
		for _, image := range m.Images {
			if image.File != image.Name+"/"+image.Version+".raw" || strings.Count(image.File, "/") != 1 || strings.HasPrefix(image.File, ".") {
				t.Errorf("the path %q", image.File)
			}
		}
	})
}
