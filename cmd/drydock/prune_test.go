package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/testserver"
)

// place is a repository on a server of its own.
type place struct {
	settings string // of repository:
	folder   string // where the server has its files
	server   *testserver.Server
}

// places starts one server of each kind that drydock speaks to, with a login.
func places(t *testing.T, h *host) map[string]place {
	t.Helper()
	return placesIn(t, h, func(testing.TB) string { return h.dir })
}

// placesIn has each server keep its files in a folder of its own.
func placesIn(t *testing.T, h *host, folder func(testing.TB) string) map[string]place {
	t.Helper()
	file := func(name, text string) string {
		path := h.path(name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	ssh := testserver.SSH(t)
	key, err := os.ReadFile(ssh.Identity)
	must(t, err)
	sftp, s3, rest := filepath.Join(folder(t), "sftp"), filepath.Join(folder(t), "s3"), filepath.Join(folder(t), "rest")
	must(t, os.MkdirAll(filepath.Join(s3, "bucket"), 0o755))
	bucket := testserver.S3(t, s3)
	web := testserver.REST(t, rest, "--user", "me", "--pass", "a secret/word")
	return map[string]place{
		"SFTP": {
			fmt.Sprintf("path: 'sftp://root@%s:%d/%s', sftp: {identity_file: %q, known_hosts: %q}",
				ssh.Host, ssh.Port, sftp, file("the key", string(key)), ssh.KnownHosts),
			sftp, ssh.Server,
		},
		"S3": {
			fmt.Sprintf("path: 's3:http://%s/bucket/drydock', credentials_file: %s, s3: {bucket_lookup: path}", bucket.Address,
				file("s3.login", "AWS_ACCESS_KEY_ID="+testserver.AccessKey+"\nAWS_SECRET_ACCESS_KEY="+testserver.SecretKey+"\n")),
			filepath.Join(s3, "bucket", "drydock"), bucket,
		},
		"REST": {
			fmt.Sprintf("path: 'rest:http://%s/', credentials_file: %s", web.Address,
				file("rest.login", "RESTIC_REST_USERNAME=me\nRESTIC_REST_PASSWORD=a secret/word\n")),
			rest, web,
		},
	}
}

// TestPruneOverTheNetwork: space comes back at servers, by the real restic, in a round
// and by hand; as a copy too. What is left is whole.
func TestPruneOverTheNetwork(t *testing.T) {
	t.Parallel() // most of it is waiting
	all := retainHost(t)
	for kind, p := range places(t, all) {
		t.Run(kind, func(t *testing.T) {
			h := retainHost(t)
			config := strings.Replace(retainConfig, "path: %[1]s/repository", "path: %[1]s/repository, password_file: "+all.path("key"), 1) +
				"copies: [{" + p.settings + ", password_file: " + all.path("key") + "}]\n"
			config = strings.Replace(config, "{last: 1, daily: 3}", "{last: 1}", 1)
			if kind == "SFTP" { // as the repository itself, and the others as copies
				config = strings.Replace(retainConfig, "path: %[1]s/repository", p.settings+", password_file: "+all.path("key"), 1)
				config = strings.Replace(config, "{last: 1, daily: 3}", "{last: 1}", 1)
			}
			must(t, os.WriteFile(h.config, fmt.Appendf(nil, config, h.dir), 0o600))
			pruned := func(r *round.Report) *round.PruneReport {
				if kind == "SFTP" {
					return r.Prune
				}
				if len(r.Copies) != 1 || r.Copies[0].Error != "" {
					t.Fatalf("copies: %+v", r.Copies)
				}
				return r.Copies[0].Prune
			}
			if r := pruned(h.night(0, 0)); r == nil { // the first round prunes
				t.Error("night 0 was not pruned")
			}
			if r := pruned(h.night(1, 0)); r != nil {
				t.Errorf("night 1 was pruned: %+v", r)
			}
			r := pruned(h.night(2, 0))
			if r == nil || r.After >= r.Before || r.After == 0 || !strings.Contains(strings.Join(r.Output, "\n"), "done") {
				t.Errorf("night 2: %+v", r)
			}
			if kind == "SFTP" {
				h.night(3, 0)
				var byHand round.PruneReport
				if h.json(&byHand, 0, "backups", "prune"); byHand.After >= byHand.Before || byHand.After == 0 {
					t.Errorf("by hand: %+v", byHand)
				}
			}
			out, err := exec.Command("restic", "--no-cache", "-r", p.folder, "--password-file", all.path("key"), "check", "--read-data").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "no errors were found") {
				t.Errorf("restic check: %v\n%s", err, out)
			}
			out, err = exec.Command("restic", "--no-cache", "-r", p.folder, "--password-file", all.path("key"), "snapshots", "--compact", "-q").CombinedOutput()
			if err != nil || strings.Count(string(out), " web ") != 1 {
				t.Errorf("restic snapshots: %v\n%s", err, out)
			}
		})
	}
}
