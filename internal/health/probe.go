package health

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"

	"golang.org/x/sys/unix"
)

// The limits on what a guest can make a probe read.
const (
	// maxBody is how much of an HTTP answer is searched, in bytes: a health
	// page is short.
	maxBody = 256 << 10
	// maxHeader is how long the header of an HTTP answer may be, in bytes.
	maxHeader = 64 << 10
	// maxRedirects is how often an HTTP answer may send the probe on.
	maxRedirects = 3
	// maxConsole is how much of a console is searched, in bytes, from the
	// start of the machine on: a hundred times what a talkative boot prints.
	maxConsole = 8 << 20
)

// TCP asks whether address ("HOST:PORT") accepts a connection.
func TCP(address string) Probe {
	return Probe{Name: "tcp " + address, Check: func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}}
}

// Expect is the answer that [HTTP] wants.
type Expect struct {
	// Status is the status of the answer; 0 is any from 200 to 299.
	Status int
	// Text must occur in the first 256 KiB of the body, if it is not empty.
	Text string
	// Connect is the HOST:PORT that is asked in the place of the URL's, if it is
	// not empty.
	Connect string
}

// HTTP asks whether url gives the expected answer to a GET. Redirects are
// followed on the same host and port only, without a proxy.
func HTTP(url string, want Expect) Probe {
	dialer := &net.Dialer{}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxHeader,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, cmp.Or(want.Connect, address))
			},
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("redirected more than %d times", maxRedirects)
			}
			if req.URL.Host != via[0].URL.Host {
				return errors.New("redirected to another host, which is not asked")
			}
			return nil
		},
	}
	return Probe{Name: "http " + url, Check: func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if want.Status == 0 && (resp.StatusCode < 200 || resp.StatusCode > 299) {
			return fmt.Errorf("answered with status %d", resp.StatusCode)
		}
		if want.Status != 0 && resp.StatusCode != want.Status {
			return fmt.Errorf("answered with status %d, not %d", resp.StatusCode, want.Status)
		}
		if want.Text == "" {
			return nil
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		if bytes.Contains(body, []byte(want.Text)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return fmt.Errorf("the answer does not contain %q", want.Text)
	}}
}

// Active asks whether the machine is active, as its driver says.
func Active(active func(ctx context.Context) (bool, error)) Probe {
	return Probe{Name: "active", Check: func(ctx context.Context) error {
		ok, err := active(ctx)
		if err == nil && !ok {
			err = errors.New("the machine does not run")
		}
		return err
	}}
}

// ConsoleMark returns where a console file ends, in bytes: taken before a start
// it is what [Console] searches from. A file that is not there yet ends at 0.
func ConsoleMark(file string) (int64, error) {
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find the end of the console: %w", err)
	}
	return info.Size(), nil
}

// Console asks whether pattern matches what was appended to file from mark on,
// up to 8 MiB. A file that has become shorter than mark was rotated or started
// anew, and is searched from its beginning. Every byte that is not UTF-8 reads
// as U+FFFD.
func Console(file string, mark int64, pattern *regexp.Regexp) Probe {
	return Probe{Name: fmt.Sprintf("console %q", pattern), Check: func(ctx context.Context) error {
		// Not to be held up by a FIFO in its place.
		f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", file)
		}
		if mark > info.Size() {
			mark = 0
		}
		length := info.Size() - mark
		section := io.NewSectionReader(f, mark, min(length, maxConsole))
		if pattern.MatchReader(bufio.NewReader(&untilDone{ctx, section})) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("search the console: %w", err)
		}
		if length > maxConsole {
			return fmt.Errorf("the console has printed %d bytes since the start, and the first %d do not match", length, maxConsole)
		}
		return fmt.Errorf("nothing that matches was printed (%d bytes since the start)", length)
	}}
}

// untilDone ends a read when its context is done: matching an expression to a
// long console takes its time.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
