//go:build linux

package testguest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// URL is the address of the agent, without a path.
func (g *Guest) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", g.Port) }

// Healthy asks the agent once, and returns the version of the root disk that
// the guest runs from.
func (g *Guest) Healthy(ctx context.Context) (version string, err error) {
	answer, err := g.ask(ctx, http.MethodGet, "/healthz", nil)
	return strings.TrimSpace(string(answer)), err
}

// WaitHealthy asks the agent until it answers or ctx ends.
func (g *Guest) WaitHealthy(ctx context.Context) (version string, err error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		version, err = g.Healthy(attempt)
		cancel()
		if err == nil {
			return version, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("guest %s is not healthy: %w", g.Name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Get returns the content of a file of the guest. The path begins with /var/,
// here and in the methods below.
func (g *Guest) Get(ctx context.Context, path string) ([]byte, error) {
	return g.ask(ctx, http.MethodGet, path, nil)
}

// Put writes a file of the guest and brings it to the disk.
func (g *Guest) Put(ctx context.Context, path string, content []byte) error {
	_, err := g.ask(ctx, http.MethodPut, path, content)
	return err
}

// Variable returns a variable of UEFI, NAME-GUID, of a guest that [Guest.UEFI] made.
func (g *Guest) Variable(ctx context.Context, name string) ([]byte, error) {
	value, err := g.ask(ctx, http.MethodGet, "/efivars/"+name, nil)
	if err == nil && len(value) < attributes {
		err = fmt.Errorf("variable %s has %d bytes", name, len(value))
	}
	if err != nil {
		return nil, err
	}
	return value[attributes:], nil
}

// SetVariable sets a variable of UEFI that lasts.
func (g *Guest) SetVariable(ctx context.Context, name string, value []byte) error {
	// EFI_VARIABLE_NON_VOLATILE, _BOOTSERVICE_ACCESS and _RUNTIME_ACCESS.
	_, err := g.ask(ctx, http.MethodPut, "/efivars/"+name, append([]byte{7, 0, 0, 0}, value...))
	return err
}

// attributes is how many bytes Linux has in front of a variable (efivarfs).
const attributes = 4

// Delete removes a file of the guest, or a folder with all that is in it.
func (g *Guest) Delete(ctx context.Context, path string) error {
	_, err := g.ask(ctx, http.MethodDelete, path, nil)
	return err
}

// Sum returns the SHA-256 digest of a file of the guest, in hex.
func (g *Guest) Sum(ctx context.Context, path string) (string, error) {
	answer, err := g.ask(ctx, http.MethodGet, "/sha256"+path, nil)
	return strings.TrimSpace(string(answer)), err
}

// Fill makes count files of up to size bytes each below path. The same seed
// makes the same names and contents.
func (g *Guest) Fill(ctx context.Context, path string, seed, count, size int) error {
	_, err := g.ask(ctx, http.MethodPost,
		fmt.Sprintf("/fill%s?seed=%d&count=%d&size=%d", path, seed, count, size), nil)
	return err
}

// Sync brings all that the guest has written to its disks.
func (g *Guest) Sync(ctx context.Context) error {
	_, err := g.ask(ctx, http.MethodPost, "/sync", nil)
	return err
}

// Boots returns one line per boot, as the guest wrote them into /var/boots.
func (g *Guest) Boots(ctx context.Context) ([]string, error) {
	content, err := g.Get(ctx, "/var/boots")
	return strings.Split(strings.TrimSpace(string(content)), "\n"), err
}

// client never reuses a connection: the guest behind a port may have been
// restarted in between.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (g *Guest) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, g.URL()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}
