package build

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// ManifestFile is the path of the manifest on the output disk.
const ManifestFile = "manifest.json"

// FormatRaw is the one format of images: a whole disk, as the guest sees it.
// Whoever opens it need not trust its content, as a header would ask.
const FormatRaw = "raw"

// Limits of a manifest.
const (
	maxManifest  = 1 << 20  // bytes: some 2 KiB for each of maxImages, and room
	minImageSize = 1 << 20  // bytes: no bootable filesystem is smaller
	maxImageSize = 16 << 40 // bytes: that of the image store
	sectorSize   = 512      // bytes: a disk has whole sectors
)

// Manifest is what a finished build says about itself.
type Manifest struct {
	Version    int       `json:"version"` // FormatVersion
	BuildID    string    `json:"build_id"`
	SpecDigest string    `json:"spec_digest"` // of the Spec that it was built from
	FinishedAt time.Time `json:"finished_at"` // UTC, whole seconds, by the guest's clock
	// Images of the spec, sorted by name. Those that did not change since the
	// last build are there with their old version.
	Images []Image `json:"images"`
	Log    string  `json:"log"` // path on the output disk
}

// Image is one finished image.
type Image struct {
	Name        string `json:"name"`
	Version     string `json:"version"`
	File        string `json:"file"`   // path on the output disk: NAME/VERSION.raw
	Format      string `json:"format"` // FormatRaw
	Size        int64  `json:"size"`   // bytes, without holes left out
	SHA256      string `json:"sha256"` // of the file, hexadecimal
	OCIDigest   string `json:"oci_digest"`
	InputDigest string `json:"input_digest"` // of all that it was built from
}

// imageFile and logFile are the only paths that a manifest may name.
func imageFile(name, version string) string { return name + "/" + version + ".raw" }
func logFile(buildID string) string         { return "log/" + buildID + ".txt" }

// Marshal returns the one spelling of m that [ParseManifest] accepts. It fails
// when m is not valid.
func (m Manifest) Marshal() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the manifest: %w", err)
	}
	return append(data, '\n'), nil
}

// ReadManifest reads a manifest of at most 1 MiB from r, and parses it.
func ReadManifest(r io.Reader) (Manifest, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err != nil {
		return Manifest{}, fmt.Errorf("read the manifest: %w", err)
	}
	return ParseManifest(data)
}

// ParseManifest checks all that can be known from a manifest alone; its errors
// are [*FormatError]. What it returns marshals to data again, so that no two
// readers can take it for different things.
func ParseManifest(data []byte) (Manifest, error) {
	if len(data) > maxManifest {
		return Manifest{}, manifestError("size", "over %d bytes", maxManifest)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var m Manifest
	if err := decoder.Decode(&m); err != nil {
		return Manifest{}, manifestError("json", "%v", err)
	}
	again, err := m.Marshal()
	if err != nil {
		return Manifest{}, err
	}
	if !bytes.Equal(again, data) {
		return Manifest{}, manifestError("json", "not as drydock writes it")
	}
	return m, nil
}

func (m Manifest) validate() error {
	switch {
	case m.Version != FormatVersion:
		return manifestError("version", "%d, and this drydock knows %d", m.Version, FormatVersion)
	case !namePattern.MatchString(m.BuildID):
		return manifestError("build_id", "%q is not a name", m.BuildID)
	case !digestPattern.MatchString(m.SpecDigest):
		return manifestError("spec_digest", "%q is not a digest", m.SpecDigest)
	case m.FinishedAt.Location() != time.UTC || m.FinishedAt.Nanosecond() != 0:
		return manifestError("finished_at", "not in UTC and whole seconds")
	case m.FinishedAt.Year() < 1970 || m.FinishedAt.Year() > 9999:
		return manifestError("finished_at", "not a year of four digits")
	case m.Log != logFile(m.BuildID):
		return manifestError("log", "%q is not %s", m.Log, logFile(m.BuildID))
	case len(m.Images) == 0 || len(m.Images) > maxImages:
		return manifestError("images", "%d of them, not 1 to %d", len(m.Images), maxImages)
	}
	for i, image := range m.Images {
		if err := image.validate(); err != nil {
			return err
		}
		if i > 0 && m.Images[i-1].Name >= image.Name {
			return manifestError("images", "%s is there twice or not in its order", image.Name)
		}
	}
	return nil
}

func (i Image) validate() error {
	switch {
	case !namePattern.MatchString(i.Name):
		return manifestError("name", "%q is not a name", i.Name)
	case !namePattern.MatchString(i.Version):
		return manifestError(i.Name+": version", "%q is not a name", i.Version)
	case i.File != imageFile(i.Name, i.Version):
		return manifestError(i.Name+": file", "%q is not %s", i.File, imageFile(i.Name, i.Version))
	case i.Format != FormatRaw:
		return manifestError(i.Name+": format", "%q is not %s", i.Format, FormatRaw)
	case i.Size < minImageSize || i.Size > maxImageSize || i.Size%sectorSize != 0:
		return manifestError(i.Name+": size", "%d is not that of a disk", i.Size)
	case !sumPattern.MatchString(i.SHA256):
		return manifestError(i.Name+": sha256", "%q is not a SHA-256", i.SHA256)
	case !digestPattern.MatchString(i.OCIDigest):
		return manifestError(i.Name+": oci_digest", "%q is not a digest", i.OCIDigest)
	case !digestPattern.MatchString(i.InputDigest):
		return manifestError(i.Name+": input_digest", "%q is not a digest", i.InputDigest)
	}
	return nil
}

func manifestError(field, format string, arguments ...any) error {
	return &FormatError{What: "manifest", Field: field, Reason: fmt.Sprintf(format, arguments...)}
}
