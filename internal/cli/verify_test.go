package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/verify"
)

// backedUp makes the configured repository with one backup of web in it, and
// returns the path of the configuration and of the pack with its content.
func backedUp(t *testing.T) (config, pack string) {
	t.Helper()
	config = writeConfig(t, small)
	a := &app{configPath: config, now: time.Now, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
	c, err := a.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := createPassword(c.Repository.PasswordFile); err != nil {
		t.Fatal(err)
	}
	password, err := readPassword(c.Repository.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Create(t.Context(), local.New(c.Repository.Path), password,
		repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	guest := treetest.NewFake()
	guest.File(treetest.Root, "letter\x1b[2J", 5, treetest.Content{Data: bytes.Repeat([]byte("a letter\n"), 1000)})
	if _, err := backup.Run(t.Context(), repo, []backup.Source{{Disk: "data", Mount: "/var", FS: guest, DeviceID: 1}},
		backup.Options{VM: "web", Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	packs := repo.PackOf(repository.Blob{Type: repository.DataBlob, ID: repository.Hash(bytes.Repeat([]byte("a letter\n"), 1000))})
	if len(packs) != 1 {
		t.Fatalf("packs %v", packs)
	}
	name := packs[0].String()
	return config, filepath.Join(c.Repository.Path, "data", name[:2], name)
}

func TestVerify(t *testing.T) {
	config, pack := backedUp(t)
	if out, errs, code := run(t, "-c", config, "verify", "--mode", "full"); code != 0 || strings.Count(out, "  good\n") != 1 {
		t.Fatalf("exit code %d, %q, %q", code, out, errs)
	}
	if out, _, _ := run(t, "-c", config, "status"); !strings.Contains(out, "just now (full)") {
		t.Errorf("status: %s", out)
	}
	data, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	data[30] ^= 4
	if err := os.Chmod(pack, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pack, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := run(t, "-c", config, "verify", "--mode", "full", "web")
	if code != 1 || !strings.Contains(out, "DAMAGED: 1 files") || !strings.Contains(errs, `:/var/letter\u{1b}[2J: piece 1 of 1`) || strings.Contains(out+errs, "\x1b") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	out, _, code = run(t, "-c", config, "verify", "--mode", "full", "--json")
	var report verifyReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 1 || report.Good || len(report.Backups) != 1 || len(report.Backups[0].Damaged) != 1 {
		t.Errorf("--json: exit code %d, %v, %s", code, err, out)
	}
	if out, _, _ := run(t, "-c", config, "status"); !strings.Contains(out, "1 of 1 DAMAGED") {
		t.Errorf("status: %s", out)
	}
	for want, args := range map[string][]string{
		"no such backup": {"verify", "--mode", "quick", "mail"}, "must be quick": {"verify", "--mode", "boots"}, "1 to 100": {"verify", "--percent", "101"},
	} {
		if _, errs, code := run(t, append([]string{"-c", config}, args...)...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit code %d, %q", args, code, errs)
		}
	}
}

// Damage that parity can undo is undone when that is asked for, and only then.
func TestVerifyRepair(t *testing.T) {
	config, pack := backedUp(t)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("{path: repo}"), []byte("{path: repo, ecc: 5}"), 1)
	if err := os.WriteFile(config, text, 0o600); err != nil || !bytes.Contains(text, []byte("ecc: 5")) {
		t.Fatalf("%v: %s", err, text)
	}
	if out, errs, code := run(t, "-c", config, "verify", "--mode", "full"); code != 0 { // makes the parity
		t.Fatalf("exit code %d, %q, %q", code, out, errs)
	}
	data, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	data[30] ^= 4
	if err := errors.Join(os.Chmod(pack, 0o600), os.WriteFile(pack, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, _, code := run(t, "-c", config, "verify", "--mode", "full"); code != 1 || !strings.Contains(out, "it can be repaired: drydock verify --repair") {
		t.Errorf("exit code %d, %q", code, out)
	}
	out, errs, code := run(t, "-c", config, "verify", "--repair", "--json")
	var report verifyReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || !report.Good || report.Mode != verify.Full ||
		len(report.Repaired) != 1 || report.Repaired[0] != filepath.Base(pack) {
		t.Errorf("exit code %d, %v, %s, %s", code, err, out, errs)
	}
	if out, _, code := run(t, "-c", config, "verify", "--mode", "full"); code != 0 || strings.Contains(out, "repaired") {
		t.Errorf("afterwards: exit code %d, %q", code, out)
	}
	if _, errs, code := run(t, "-c", config, "verify", "--mode", "boot", "--repair"); code == 0 || !strings.Contains(errs, "--repair does not go with --mode boot") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

// A copy has parity of its own percentage, or none.
func TestParityOfCopy(t *testing.T) {
	config, pack := backedUp(t)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "copies: [{path: copy, ecc: 10}]\n"...)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := run(t, "-c", config, "backups", "copy"); code != 0 {
		t.Fatalf("exit code %d, %q", code, errs)
	}
	repo := filepath.Dir(filepath.Dir(filepath.Dir(pack)))
	count := func(folder string) int {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(folder, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	there := filepath.Join(filepath.Dir(repo), "copy")
	if packs, parity := count(filepath.Join(there, "data")), count(filepath.Join(there, "ecc")); packs == 0 || packs != parity {
		t.Errorf("at the copy there are %d packs, and parity of %d", packs, parity)
	}
	if n := count(filepath.Join(repo, "ecc")); n != 0 {
		t.Errorf("the repository has parity of %d packs", n)
	}
}

// A copy is compressed as it says, whatever the repository is.
func TestCompressionOfCopy(t *testing.T) {
	config, _ := backedUp(t)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "copies: [{path: loose, compression: off}, {path: tight, compression: max}]\n"...)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := run(t, "-c", config, "backups", "copy"); code != 0 {
		t.Fatalf("exit code %d, %q", code, errs)
	}
	stored := func(name string) int64 {
		return benchdisk.FolderSize(t, filepath.Join(filepath.Dir(config), name, "data"))
	}
	if loose, tight := stored("loose"), stored("tight"); tight == 0 || loose <= tight {
		t.Errorf("%d bytes without compression, %d with the hardest", loose, tight)
	}
}

// In rounds the schedule decides, and a day that was missed is caught up.
func TestVerifyInRounds(t *testing.T) {
	config, _ := backedUp(t)
	now := time.Now()
	a := &app{configPath: config, now: func() time.Time { return now }, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
	prove := func(mode verify.Mode) *round.ProofReport {
		t.Helper()
		h, err := a.openHost(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer h.close()
		p := h.proofs()
		p.mode = mode
		rep, err := p.Prove(t.Context(), func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	if rep := prove("off"); rep != nil {
		t.Errorf("switched off: %+v", rep)
	}
	if rep := prove(verify.Quick); rep == nil || rep.BytesRead != 0 || rep.Backups != 1 {
		t.Errorf("the first night: %+v", rep)
	}
	if rep := prove(verify.Sample); rep != nil {
		t.Errorf("the same night: %+v", rep)
	}
	now = now.Add(23 * time.Hour)
	if rep := prove(verify.Sample); rep == nil {
		t.Error("the next night: nothing")
	}
	now = now.AddDate(0, 0, 40)
	if rep := prove(verify.Sample); rep == nil || rep.BytesRead == 0 {
		t.Errorf("after 40 nights without: %+v", rep)
	}
}
