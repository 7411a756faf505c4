package credentials_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/credentials"
)

func file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRead(t *testing.T) {
	path := file(t, "# of S3\nAWS_ACCESS_KEY_ID=key\n  export AWS_SECRET_ACCESS_KEY='se=cr\"et'  \r\n\nRESTIC_REST_USERNAME=me\nRESTIC_REST_PASSWORD=\"a b\"", 0o600)
	got, err := credentials.Read(path)
	want := credentials.Credentials{AccessKey: "key", SecretKey: `se=cr"et`, User: "me", Password: "a b"}
	if err != nil || got != want {
		t.Errorf("%q %q %q %q, %v", got.AccessKey, got.SecretKey, got.User, got.Password, err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, got); strings.Contains(text, "cr") && text != "credentials" {
			t.Errorf("%s prints %q", format, text)
		}
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"hunter2":                    ":1: is not NAME=VALUE",
		"#\nhunter2=x":               ":2: is none of AWS_ACCESS_KEY_ID",
		"RESTIC_REST_PASSWORD=":      "empty",
		"RESTIC_REST_PASSWORD=a\x01": "no text",
		"AWS_ACCESS_KEY_ID=hunter2\nAWS_ACCESS_KEY_ID=hunter2": ":2: AWS_ACCESS_KEY_ID is there twice",
		strings.Repeat("#hunter2\n", 10_000):                   "more than 65536 bytes",
	} {
		_, err := credentials.Read(file(t, text, 0o600))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.50q: %v; want %q", text, err, want)
		}
	}
	if _, err := credentials.Read(file(t, "", 0o644)); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file for everybody: %v", err)
	}
	if _, err := credentials.Read("/nonexistent"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func FuzzRead(f *testing.F) {
	f.Add("AWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY='x'")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "credentials")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := credentials.Read(path)
		if err == nil && strings.ContainsAny(c.Password+c.SecretKey, "\n\x00") {
			t.Errorf("%q", text)
		}
	})
}
