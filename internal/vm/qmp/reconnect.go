//go:build linux

package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// reconnecting is in front of the names of the nodes that [Reconnect] adds. Behind it is
// that of the node which reads the new one.
const reconnecting = "drydock-"

// Reconnect has a QEMU whose disks somebody else has put together wait for NBD servers
// that go away, for as long as the headers of the images say: libvirt reads there which
// server an image lies on, but not its reconnect-delay, and without one reads fail at
// once. In the place of such a connection comes another. It takes QEMU 6.1 (2021).
func Reconnect(ctx context.Context, m Monitor) error {
	list, err := nodes(ctx, m)
	if err != nil {
		return err
	}
	for _, top := range list {
		server := top.server()
		if server == nil {
			continue
		}
		i := slices.IndexFunc(list, func(n Node) bool {
			return n.Driver == "raw" && n.File == top.Backing && !strings.HasPrefix(n.NodeName, "#")
		})
		if i < 0 {
			return fmt.Errorf("%s lies on %s, which no node of this QEMU reads as drydock knows it", clip(top.file()), clip(top.Backing))
		}
		if err := reconnect(ctx, m, list, list[i].NodeName, server); err != nil {
			return err
		}
	}
	return nil
}

// reconnect gives the node another connection, unless it has one already.
func reconnect(ctx context.Context, m Monitor, list []Node, node string, server map[string]any) error {
	name := reconnecting + node
	if slices.ContainsFunc(list, func(n Node) bool { return n.NodeName == name }) {
		err := m.Execute(ctx, "blockdev-del", map[string]string{"node-name": name}, nil)
		if _, used := errors.AsType[*Error](err); used {
			return nil // by the node already
		}
		if err != nil {
			return err
		}
	}
	server["node-name"], server["read-only"] = name, true
	if err := m.Execute(ctx, "blockdev-add", server, nil); err != nil {
		return err
	}
	reads := map[string]any{"driver": "raw", "node-name": node, "read-only": true, "file": name}
	return m.Execute(ctx, "blockdev-reopen", map[string]any{"options": []any{reads}}, nil)
}

func (n Node) server() map[string]any {
	if n.Driver != "qcow2" || n.Backing == "" {
		return nil
	}
	return server(n.Image.Backing)
}

// HasWait reports whether what the header of a qcow2 image says that it lies on is an NBD
// server for which it has QEMU wait.
func HasWait(backing string) bool { return server(backing) != nil }

// server is how such a header says that QEMU shall connect to the server; otherwise nil.
func server(backing string) map[string]any {
	text, ok := strings.CutPrefix(backing, "json:")
	if !ok {
		return nil
	}
	var says struct {
		File map[string]any `json:"file"`
	}
	if json.Unmarshal([]byte(text), &says) != nil || says.File["driver"] != "nbd" || says.File["reconnect-delay"] == nil {
		return nil
	}
	return says.File
}

// Disconnect removes the connections of [Reconnect] that nothing needs any more.
func Disconnect(ctx context.Context, m Monitor) error {
	list, err := nodes(ctx, m)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range list {
		of, ours := strings.CutPrefix(n.NodeName, reconnecting)
		if ours && !slices.ContainsFunc(list, func(n Node) bool { return n.NodeName == of }) {
			errs = append(errs, m.Execute(ctx, "blockdev-del", map[string]string{"node-name": n.NodeName}, nil))
		}
	}
	return errors.Join(errs...)
}
