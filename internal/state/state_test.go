package state_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
)

// TestMain is also the process that TestRecordSurvivesKill kills, and the one
// that holds the lock in TestLockDiesWithItsHolder.
func TestMain(m *testing.M) {
	switch os.Getenv("STATE_TEST") {
	case "record":
		recordForever(os.Getenv("STATE_DIR"))
	case "lock":
		if _, err := state.AcquireLock(os.Getenv("STATE_DIR"), "test"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		time.Sleep(time.Hour)
	default:
		os.Exit(m.Run())
	}
}

func open(t *testing.T, dir string) *state.DB {
	t.Helper()
	db, err := state.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRoundFromBeginToHistory(t *testing.T) {
	db := open(t, t.TempDir())
	ctx := t.Context()
	at := time.Date(2026, 11, 24, 2, 30, 0, 123456789, time.UTC)
	check(t, db.BeginRound(ctx, "r1", at))
	check(t, db.Record(ctx, state.Entry{Round: "r1", VM: "web", Step: "stop", Phase: state.Begin, Data: json.RawMessage(`{"found":"running"}`), At: at}))
	check(t, db.Record(ctx, state.Entry{Round: "r1", VM: "web", Step: "stop", Phase: state.End, At: at.Add(time.Second)}))

	opened, err := db.OpenRounds(ctx)
	check(t, err)
	if len(opened) != 1 || opened[0].ID != "r1" || !opened[0].Started.Equal(at) {
		t.Fatalf("open rounds %+v", opened)
	}
	entries, err := db.Journal(ctx, "r1")
	check(t, err)
	if len(entries) != 2 || string(entries[0].Data) != `{"found":"running"}` || entries[1].Phase != state.End {
		t.Fatalf("journal %+v", entries)
	}
	check(t, db.EndRound(ctx, state.Round{ID: "r1", Ended: at.Add(time.Minute), Outcome: state.Done, Report: json.RawMessage(`{"x":1}`)},
		map[string]json.RawMessage{"web": json.RawMessage(`{"vm":"web"}`)}))
	if opened, err = db.OpenRounds(ctx); err != nil || len(opened) != 0 {
		t.Fatalf("after the end: open rounds %+v, %v", opened, err)
	}
	check(t, db.BeginRound(ctx, "r2", at.Add(24*time.Hour)))
	rounds, err := db.Rounds(ctx, 10)
	check(t, err)
	if len(rounds) != 2 || rounds[0].ID != "r2" || rounds[1].Outcome != state.Done || string(rounds[1].Report) != `{"x":1}` {
		t.Fatalf("rounds %+v", rounds)
	}
	reports, err := db.VMReports(ctx, "web", 10)
	check(t, err)
	if len(reports) != 1 || string(reports[0]) != `{"vm":"web"}` {
		t.Fatalf("reports %s", reports)
	}
	if err := db.BeginRound(ctx, "r1", at); err == nil {
		t.Error("a round began twice")
	}
}

func TestSnapshotsAreRememberedUntilDropped(t *testing.T) {
	db := open(t, t.TempDir())
	ctx := t.Context()
	s := state.Snapshot{Round: "r1", VM: "web", Disk: "root", Data: json.RawMessage(`1`)}
	check(t, db.AddSnapshot(ctx, s))
	s.Data = json.RawMessage(`2`)
	check(t, db.AddSnapshot(ctx, s))
	got, err := db.Snapshots(ctx, "web")
	check(t, err)
	if len(got) != 1 || string(got[0].Data) != "2" {
		t.Fatalf("snapshots %+v", got)
	}
	check(t, db.DropSnapshot(ctx, s))
	if got, err = db.Snapshots(ctx, "web"); err != nil || len(got) != 0 {
		t.Fatalf("snapshots %+v, %v", got, err)
	}
}

func TestBuilds(t *testing.T) {
	db := open(t, t.TempDir())
	ctx := t.Context()
	if b, err := db.LastBuild(ctx, "builder"); b != nil || err != nil {
		t.Fatalf("a build from nowhere: %+v, %v", b, err)
	}
	at := time.Date(2026, 11, 24, 2, 30, 0, 0, time.UTC)
	check(t, db.StartBuild(ctx, state.Build{ID: "b1", VM: "builder", SpecDigest: "d1", Started: at}))
	check(t, db.FinishBuild(ctx, "b1", at.Add(time.Hour)))
	check(t, db.StartBuild(ctx, state.Build{ID: "b2", VM: "builder", SpecDigest: "d2", Started: at.Add(24 * time.Hour)}))
	check(t, db.StartBuild(ctx, state.Build{ID: "b2", VM: "builder", SpecDigest: "other", Started: at.Add(48 * time.Hour)}))
	last, err := db.LastBuild(ctx, "builder")
	check(t, err)
	if last.ID != "b2" || last.SpecDigest != "d2" || !last.Harvested.IsZero() {
		t.Errorf("last build %+v", last)
	}
	harvest, err := db.LastHarvest(ctx, "builder")
	check(t, err)
	if harvest.ID != "b1" || !harvest.Started.Equal(at) || harvest.Harvested.IsZero() {
		t.Errorf("last harvest %+v", harvest)
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	raw, err := sql.Open("sqlite", filepath.Join(dir, "state.db"))
	check(t, err)
	_, err = raw.Exec("PRAGMA user_version = 99")
	check(t, err)
	check(t, raw.Close())
	if _, err := state.Open(t.Context(), filepath.Join(dir, "state.db")); !errors.Is(err, state.ErrNewer) {
		t.Errorf("error %v, want ErrNewer", err)
	}
}

func TestStateIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	open(t, dir)
	info, err := os.Stat(filepath.Join(dir, "state.db"))
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func recordForever(dir string) {
	ctx := context.Background()
	db, err := state.Open(ctx, filepath.Join(dir, "state.db"))
	if err == nil {
		err = db.BeginRound(ctx, "r1", time.Now())
	}
	for n := 0; err == nil; n++ {
		err = db.Record(ctx, state.Entry{Round: "r1", VM: "web", Step: fmt.Sprint(n), Phase: state.Begin, At: time.Now()})
		if err == nil {
			fmt.Println(n)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestRecordSurvivesKill kills a process that records as fast as it can: every
// entry that it said it had recorded is there, in order.
func TestRecordSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "STATE_TEST=record", "STATE_DIR="+dir)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	check(t, err)
	check(t, c.Start())
	lines := bufio.NewScanner(out)
	said := -1
	for said < 20 && lines.Scan() {
		_, err := fmt.Sscan(lines.Text(), &said)
		check(t, err)
	}
	check(t, c.Process.Kill())
	for lines.Scan() {
		_, err := fmt.Sscan(lines.Text(), &said)
		check(t, err)
	}
	_ = c.Wait() // killed
	db := open(t, dir)
	entries, err := db.Journal(t.Context(), "r1")
	check(t, err)
	if said < 20 || len(entries) <= said {
		t.Fatalf("%d entries are there, %d were recorded", len(entries), said+1)
	}
	for n, e := range entries {
		if e.Step != fmt.Sprint(n) {
			t.Fatalf("entry %d is %s", n, e.Step)
		}
	}
	if open, err := db.OpenRounds(t.Context()); err != nil || len(open) != 1 {
		t.Errorf("open rounds %v, %v; want the one that was cut off", open, err)
	}
}

// TestLockDiesWithItsHolder: a dead process holds no lock.
func TestLockDiesWithItsHolder(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "STATE_TEST=lock", "STATE_DIR="+dir)
	out, err := c.StdoutPipe()
	check(t, err)
	check(t, c.Start())
	if s := bufio.NewScanner(out); !s.Scan() || s.Text() != "locked" {
		t.Fatalf("the holder said %q", s.Text())
	}
	_, err = state.AcquireLock(dir, "test")
	if !errors.Is(err, state.ErrLocked) {
		t.Errorf("error %v, want ErrLocked", err)
	}
	if want := fmt.Sprintf("process %d", c.Process.Pid); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v does not name %s", err, want)
	}
	check(t, c.Process.Kill())
	_ = c.Wait() // killed
	lock, err := state.AcquireLock(dir, "test")
	check(t, err)
	check(t, lock.Release())
}
