package health_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/health"
)

// clock is a clock that moves only when somebody sleeps.
type clock struct{ now time.Time }

func (c *clock) options(timeout time.Duration) health.Options {
	return health.Options{
		Timeout: timeout, Interval: time.Second,
		Now:   func() time.Time { return c.now },
		Sleep: func(ctx context.Context, d time.Duration) error { c.now = c.now.Add(d); return ctx.Err() },
	}
}

// once asks a probe one time.
func once(t *testing.T, p health.Probe) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return p.Check(ctx)
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("got the error %v, want one with %q", err, part)
	}
}

func TestCheckWaitsForAll(t *testing.T) {
	var c clock
	first, second := 0, 0
	probes := []health.Probe{
		{Name: "first", Check: func(context.Context) error {
			if first++; first == 2 {
				return nil // passes once, and no more until the fifth try
			}
			if first < 5 {
				return fmt.Errorf("try %d", first)
			}
			return nil
		}},
		{Name: "second", Check: func(context.Context) error {
			if second++; second < 4 {
				return errors.New("not yet")
			}
			return nil
		}},
	}
	result, err := health.Check(context.Background(), probes, c.options(time.Minute))
	if err != nil || result.Tries != 5 || result.Duration != 4*time.Second {
		t.Fatalf("got %+v, %v; want five tries in four seconds", result, err)
	}
}

func TestCheckSaysWhatFailed(t *testing.T) {
	var c clock
	probes := []health.Probe{
		{Name: "good", Check: func(context.Context) error { return nil }},
		{Name: "bad", Check: func(context.Context) error { return errors.New("evil\x1b[2Jtext\n") }},
	}
	result, err := health.Check(context.Background(), probes, c.options(10*time.Second))
	var unhealthy *health.UnhealthyError
	if !errors.As(err, &unhealthy) || !errors.Is(err, health.ErrUnhealthy) {
		t.Fatalf("got %v, want an UnhealthyError", err)
	}
	if len(unhealthy.Failed) != 1 || unhealthy.Failed[0].Name != "bad" || result.Tries != 11 {
		t.Errorf("failed %+v after %d tries", unhealthy.Failed, result.Tries)
	}
	if want := `not healthy after 10s: bad: evil\u{1b}[2Jtext\n`; err.Error() != want {
		t.Errorf("the error reads %q, want %q", err, want)
	}
}

func TestCheckWithoutTimeTriesOnce(t *testing.T) {
	var c clock
	tries := 0
	probe := health.Probe{Check: func(context.Context) error { tries++; return errors.New("no") }}
	if _, err := health.Check(context.Background(), []health.Probe{probe}, c.options(0)); !errors.Is(err, health.ErrUnhealthy) || tries != 1 {
		t.Errorf("got %v after %d tries", err, tries)
	}
	if result, err := health.Check(context.Background(), nil, c.options(0)); err != nil || result.Tries != 1 {
		t.Errorf("without probes: %+v, %v", result, err)
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	probe := health.Probe{Check: func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }}
	_, err := health.Check(ctx, []health.Probe{probe}, health.Options{Timeout: time.Hour})
	if !errors.Is(err, context.Canceled) || errors.Is(err, health.ErrUnhealthy) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	probe := health.TCP(l.Addr().String())
	if err := once(t, probe); err != nil {
		t.Errorf("a listener: %v", err)
	}
	l.Close()
	if err := once(t, probe); err == nil {
		t.Error("a closed listener passes")
	}
}

func TestHTTP(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer other.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "status: green") })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503); fmt.Fprint(w, "green") })
	mux.HandleFunc("/move", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := fmt.Fprintln(w, strings.Repeat("x", 4096)); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	for _, tc := range []struct {
		path string
		want health.Expect
		err  string // empty: passes
	}{
		{"/ok", health.Expect{}, ""},
		{"/ok", health.Expect{Status: 200, Text: "green"}, ""},
		{"/ok", health.Expect{Text: "red"}, `does not contain "red"`},
		{"/ok", health.Expect{Status: 204}, "status 200, not 204"},
		{"/broken", health.Expect{}, "status 503"},
		{"/broken", health.Expect{Status: 503, Text: "green"}, ""},
		{"/move", health.Expect{Text: "green"}, ""},
		{"/loop", health.Expect{}, "redirected more than"},
		{"/away", health.Expect{}, "another host"},
		{"/endless", health.Expect{Text: "green"}, "does not contain"},
	} {
		t.Run(fmt.Sprintf("%s %+v", tc.path, tc.want), func(t *testing.T) {
			err := once(t, health.HTTP(server.URL+tc.path, tc.want))
			if tc.err == "" && err != nil {
				t.Error(err)
			} else if tc.err != "" {
				wantError(t, err, tc.err)
			}
		})
	}
}

// Another address may answer in the place of a URL's, whose name it is asked by.
func TestHTTPConnect(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) }))
	defer server.Close()
	want := health.Expect{Text: "web.invalid:8080", Connect: server.Listener.Addr().String()}
	if err := once(t, health.HTTP("http://web.invalid:8080/", want)); err != nil {
		t.Error(err)
	}
}

// A service that accepts a connection and says nothing must not hold a check up
// beyond its timeout.
func TestSilentService(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	probe := health.HTTP("http://"+l.Addr().String(), health.Expect{})
	_, err = health.Check(context.Background(), []health.Probe{probe},
		health.Options{Timeout: 50 * time.Millisecond, Interval: 10 * time.Millisecond})
	if !errors.Is(err, health.ErrUnhealthy) {
		t.Errorf("got %v", err)
	}
}

func TestActive(t *testing.T) {
	var on atomic.Bool
	probe := health.Active(func(context.Context) (bool, error) { return on.Load(), nil })
	wantError(t, once(t, probe), "does not run")
	on.Store(true)
	if err := once(t, probe); err != nil {
		t.Error(err)
	}
}

func TestConsole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "console")
	appendTo := func(text string) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	mark := func() int64 {
		t.Helper()
		m, err := health.ConsoleMark(file)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	pattern := regexp.MustCompile(`web login: $`)
	before := mark()
	if before != 0 {
		t.Fatalf("a missing console ends at %d", before)
	}
	wantError(t, once(t, health.Console(file, before, pattern)), "no such file")

	appendTo("last night: web login: ")
	probe := health.Console(file, mark(), pattern)
	wantError(t, once(t, probe), "0 bytes since the start")
	appendTo("\xff\xfe\x1b[1mbooting\r\nweb lo")
	wantError(t, once(t, probe), "nothing that matches")
	appendTo("gin: ")
	if err := once(t, probe); err != nil {
		t.Errorf("the prompt is there: %v", err)
	}

	// Started anew with a truncated file.
	probe = health.Console(file, mark(), pattern)
	if err := os.WriteFile(file, []byte("web login: "), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := once(t, probe); err != nil {
		t.Errorf("a truncated console: %v", err)
	}
}

func TestConsoleIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "console")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 100 << 20 // zeros, and the text after them
	if _, err := f.WriteAt([]byte("login:"), size); err != nil {
		t.Fatal(err)
	}
	wantError(t, once(t, health.Console(file, 0, regexp.MustCompile("login:"))), "has printed 104857606 bytes")
	if err := once(t, health.Console(file, size-10, regexp.MustCompile("login:"))); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := health.Console(file, 0, regexp.MustCompile("login:")).Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v", err)
	}
	wantError(t, once(t, health.Console("/dev/null", 0, regexp.MustCompile("."))), "not a regular file")
}
