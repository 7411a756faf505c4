// Package qemuimg runs qemu-img: the few of its commands that drydock needs,
// without a shell, with a deadline, with bounded output, and with the format of
// every image declared and never probed. No file is opened because an image names
// it: the backing file of an image stays closed.
//
// qemu-img takes QEMU's image locks itself, so a command that changes an image
// fails while a VM uses it.
package qemuimg

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/printed"
)

// maxOutput bounds what is kept of a command's output, in bytes: an image with
// QEMU's 65,536 snapshots is described in less.
const maxOutput = 32 << 20

// maxMessage bounds what an [Error] shows of a command's messages, in bytes.
const maxMessage = 2 << 10

// waitDelay is how long a command that was killed may keep its pipes open.
const waitDelay = 5 * time.Second

// Options are the settings of a [Tool]. The zero value is good.
type Options struct {
	// Program is the name or path of qemu-img; by default "qemu-img".
	Program string
	// Timeout bounds each command but Convert; by default two minutes, since
	// even deleting a snapshot of a fragmented disk takes seconds.
	Timeout time.Duration
	// ConvertTimeout bounds Convert; by default six hours.
	ConvertTimeout time.Duration
	// ClusterSize is that of new qcow2 images, in bytes; by default qemu-img's own.
	ClusterSize int64
}

// Tool runs qemu-img. It is safe for concurrent use.
type Tool struct{ o Options }

// New returns a Tool.
func New(o Options) *Tool {
	if o.Program == "" {
		o.Program = "qemu-img"
	}
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.ConvertTimeout <= 0 {
		o.ConvertTimeout = 6 * time.Hour
	}
	return &Tool{o: o}
}

// Error says that a command failed, with what it said.
type Error struct {
	Command string // "snapshot"
	Path    string
	Message string // of qemu-img, escaped; may be empty
	Err     error
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("qemu-img %s %s: %v", e.Command, e.Path, e.Err)
	}
	return fmt.Sprintf("qemu-img %s %s: %s", e.Command, e.Path, e.Message)
}

func (e *Error) Unwrap() error { return e.Err }

// Info is what qemu-img info says of a qcow2 image.
type Info struct {
	VirtualSize int64    // bytes
	Snapshots   []string // names of the internal snapshots; hostile
	Bitmaps     []string // names of the persistent dirty bitmaps; hostile
}

// Info describes the qcow2 image at path. It takes no lock, so that a VM may run
// on it; what it says may then be out of date.
func (t *Tool) Info(ctx context.Context, path string) (Info, error) {
	name, err := qcow2Name(path)
	if err != nil {
		return Info{}, err
	}
	out, err := t.run(ctx, t.o.Timeout, "info", path, "info", "-U", "--output=json", "--", name)
	if err != nil {
		return Info{}, err
	}
	var answer struct {
		VirtualSize int64 `json:"virtual-size"`
		Snapshots   []struct {
			Name string `json:"name"`
		} `json:"snapshots"`
		FormatSpecific struct {
			Data struct {
				Bitmaps []struct {
					Name string `json:"name"`
				} `json:"bitmaps"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return Info{}, &Error{Command: "info", Path: path, Err: fmt.Errorf("read its answer: %w", err)}
	}
	info := Info{VirtualSize: answer.VirtualSize}
	for _, s := range answer.Snapshots {
		info.Snapshots = append(info.Snapshots, s.Name)
	}
	for _, b := range answer.FormatSpecific.Data.Bitmaps {
		info.Bitmaps = append(info.Bitmaps, b.Name)
	}
	return info, nil
}

// CreateSnapshot makes an internal snapshot in the qcow2 image at path, which
// nobody may have open.
func (t *Tool) CreateSnapshot(ctx context.Context, path, name string) error {
	image, err := qcow2Name(path)
	if err != nil {
		return err
	}
	_, err = t.run(ctx, t.o.Timeout, "snapshot -c", path, "snapshot", "-c", name, "--", image)
	return err
}

// DeleteSnapshot deletes an internal snapshot from the qcow2 image at path,
// which nobody may have open. It must exist.
func (t *Tool) DeleteSnapshot(ctx context.Context, path, name string) error {
	image, err := qcow2Name(path)
	if err != nil {
		return err
	}
	_, err = t.run(ctx, t.o.Timeout, "snapshot -d", path, "snapshot", "-d", name, "--", image)
	return err
}

// AddBitmap starts a persistent dirty bitmap in the qcow2 image at path, which
// nobody may have open. Each of its bits stands for granularity bytes.
func (t *Tool) AddBitmap(ctx context.Context, path, name string, granularity int64) error {
	return t.bitmap(ctx, path, name, "--add", "-g", strconv.FormatInt(granularity, 10))
}

// RemoveBitmap removes a persistent dirty bitmap from the qcow2 image at path,
// which nobody may have open. It must exist.
func (t *Tool) RemoveBitmap(ctx context.Context, path, name string) error {
	return t.bitmap(ctx, path, name, "--remove")
}

func (t *Tool) bitmap(ctx context.Context, path, name string, action ...string) error {
	image, err := qcow2Name(path)
	if err != nil {
		return err
	}
	args := append(append([]string{"bitmap"}, action...), "--", image, name)
	_, err = t.run(ctx, t.o.Timeout, "bitmap "+action[0], path, args...)
	return err
}

// ConvertRaw writes the raw image at from to a new qcow2 image at to, holes kept.
func (t *Tool) ConvertRaw(ctx context.Context, from, to string) error {
	from, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	to, err = filepath.Abs(to)
	if err != nil {
		return err
	}
	_, err = t.run(ctx, t.o.ConvertTimeout, "convert", from, t.toQCOW2(from, to)...)
	return err
}

// toQCOW2 are the arguments that make a qcow2 image of a raw one.
func (t *Tool) toQCOW2(from, to string) []string {
	args := []string{"convert", "-f", "raw", "-O", "qcow2"}
	if t.o.ClusterSize > 0 {
		args = append(args, "-o", "cluster_size="+strconv.FormatInt(t.o.ClusterSize, 10))
	}
	return append(args, "--", from, to)
}

// ConvertNBD writes the disk that an NBD server exports under the empty name, on a
// Unix socket, to a new qcow2 image at to, zeros as holes. What is at to is
// replaced.
func (t *Tool) ConvertNBD(ctx context.Context, socket, to string) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	_, err = t.run(ctx, t.o.ConvertTimeout, "convert", to, t.toQCOW2(NBDURL(socket, ""), to)...)
	return err
}

// NBDURL is the URL by which QEMU finds an export of an NBD server at a socket.
func NBDURL(socket, export string) string {
	u := url.URL{Scheme: "nbd+unix", Path: "/" + export, RawQuery: url.Values{"socket": {socket}}.Encode()}
	return u.String()
}

// CreateOverlay makes a qcow2 image at path of size bytes that shows what is at
// backing, a file or a URL of raw content, until it is written to; with "" it is empty.
// What is at backing is not looked at. What is at path is replaced.
func (t *Tool) CreateOverlay(ctx context.Context, path, backing string, size int64) error {
	to, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	args := []string{"create", "-q", "-f", "qcow2"}
	if backing != "" {
		args = append(args, "-u", "-b", backing, "-F", "raw")
	}
	_, err = t.run(ctx, t.o.Timeout, "create", path, append(args, "--", to, strconv.FormatInt(size, 10))...)
	return err
}

// Resize makes the qcow2 image at path larger, to size bytes.
func (t *Tool) Resize(ctx context.Context, path string, size int64) error {
	image, err := qcow2Name(path)
	if err != nil {
		return err
	}
	_, err = t.run(ctx, t.o.Timeout, "resize", path, "resize", "-q", "--", image, strconv.FormatInt(size, 10))
	return err
}

func (t *Tool) run(ctx context.Context, timeout time.Duration, command, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after %s: %w", timeout, context.DeadlineExceeded))
	defer cancel()
	cmd := exec.CommandContext(ctx, t.o.Program, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = waitDelay
	out, messages := &printed.Head{Limit: maxOutput}, &printed.Head{Limit: maxMessage}
	cmd.Stdout, cmd.Stderr = out, messages
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		said, _ := messages.Bytes()
		return nil, &Error{Command: command, Path: path, Message: message(said), Err: err}
	}
	text, cut := out.Bytes()
	if cut {
		return nil, &Error{Command: command, Path: path, Err: fmt.Errorf("it printed more than %d bytes", maxOutput)}
	}
	return text, nil
}

// message makes one line of what a command said.
func message(b []byte) string {
	text := strings.Join(strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	return escape.Line(strings.TrimPrefix(text, "qemu-img: "))
}
