package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/config"
)

// TestPruneOptions: restic reaches the repository where and as whom drydock does,
// and no secret stands in an argument.
func TestPruneOptions(t *testing.T) {
	login := filepath.Join(t.TempDir(), "login")
	text := "AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY=xyzzy\nRESTIC_REST_USERNAME=me\nRESTIC_REST_PASSWORD=xyzzy/1\n"
	if err := os.WriteFile(login, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		repository config.Repository
		location   string
		args, env  []string
	}{
		{config.Repository{Path: "/srv/backup"}, "/srv/backup", nil, nil},
		{config.Repository{Path: "sftp:me@nas:/srv"}, "sftp:me@nas:/srv", nil, nil},
		{
			config.Repository{Path: "sftp://me@nas:2222//srv", SFTP: &config.SFTP{IdentityFile: "/etc/my key", KnownHosts: "/etc/hosts"}},
			"sftp://me@nas:2222//srv",
			[]string{"-o", `"sftp.command=ssh nas -l me -p 2222 -i ""/etc/my key"" -o UserKnownHostsFile=/etc/hosts -s sftp"`}, nil,
		},
		{
			config.Repository{Path: "sftp:nas:/srv", SFTP: &config.SFTP{IdentityFile: "/etc/a,b"}}, "sftp:nas:/srv",
			[]string{"-o", `"sftp.command=ssh nas -i /etc/a,b -s sftp"`}, nil,
		},
		{
			config.Repository{Path: "s3:https://store.example/bucket", CredentialsFile: login, CAFile: "/etc/ca.pem", S3: &config.S3{Region: "eu", BucketLookup: "dns"}},
			"s3:https://store.example/bucket",
			[]string{"--cacert", "/etc/ca.pem", "-o", "s3.bucket-lookup=dns"},
			[]string{"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=xyzzy", "AWS_SESSION_TOKEN=", "AWS_DEFAULT_REGION=eu"},
		},
		{config.Repository{Path: "rest:https://store.example/a/", CredentialsFile: login}, "rest:https://me:xyzzy%2F1@store.example/a/", nil, nil},
	} {
		o, err := pruneOptions(c.repository)
		if err != nil || o.Location != c.location || !slices.Equal(o.Args, c.args) || !slices.Equal(o.Env, c.env) {
			t.Errorf("%s: %+v, %v", c.repository.Path, o, err)
		}
		if strings.Contains(strings.Join(o.Args, " "), "xyzzy") {
			t.Errorf("%s: a secret is an argument: %q", c.repository.Path, o.Args)
		}
	}
	for _, bad := range []config.Repository{
		{Path: "sftp:nas:/srv", SFTP: &config.SFTP{IdentityFile: `/a"b'c`}},
		{Path: "rest:https://store.example/", CredentialsFile: "/does/not/exist"},
		{Path: "b2:bucket"},
	} {
		if o, err := pruneOptions(bad); err == nil {
			t.Errorf("%s: %+v", bad.Path, o)
		}
	}
}
