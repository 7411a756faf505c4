//go:build linux

package systemd_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/systemd"
)

// TestDefinition: a real systemd says which files a unit was made from, and what it
// runs, with its own quoting undone; a unit that it has not is an error.
func TestDefinition(t *testing.T) {
	h := boot(t)
	const unit, dropIn = "/etc/systemd/system/web.service", "/etc/systemd/system/web.service.d/10-more.conf"
	h.Write(unit, "[Service]\nExecStart=/bin/sh -c \"sleep 1000\" '50%%'\n")
	h.Write(dropIn, "[Service]\nNice=5\nUser=nobody\n")
	h.Write("/etc/systemd/system/mail.service", "[Service]\nExecStart=/bin/sleep 1\nDynamicUser=yes\n")
	h.Run("systemctl", "daemon-reload")
	for name, want := range map[string]vm.Definition{
		"web.service":  {Files: []string{unit, dropIn}, Command: []string{"/bin/sh", "-c", "sleep 1000", "50%"}, User: "nobody"},
		"mail.service": {Files: []string{"/etc/systemd/system/mail.service"}, Command: []string{"/bin/sleep", "1"}, User: "mail"},
		"gone.service": {},
	} {
		m, err := systemd.New(systemd.Options{Unit: name, Connect: systemd.At(h.Bus)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Definition(t.Context())
		if name == "gone.service" {
			if err == nil || !strings.Contains(err.Error(), "daemon-reload") {
				t.Errorf("a unit that is not there: %v", err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
}
