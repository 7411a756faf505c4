package cli

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestHowItWasBuilt: the version and the doctor say whether there is cgo in this build,
// and the doctor how to get one without.
func TestHowItWasBuilt(t *testing.T) {
	here := readBuilt()
	if out, errs, code := run(t, "--version"); code != exitDone || out != "drydock "+here.String()+"\n" {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	out, _, _ := run(t, "-c", writeConfig(t, small), "doctor", "--json")
	var found []finding
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if !slices.Contains(found, here.finding()) {
		t.Errorf("the doctor does not say %+v", here.finding())
	}
	for cgo, fix := range map[bool]string{true: "make build", false: ""} {
		f := built{version: "v1", compiler: "go1", cgo: cgo}.finding()
		if f.OK == cgo || f.Needed || !strings.HasPrefix(f.Fix, fix) || (f.Fix == "") != (fix == "") {
			t.Errorf("with cgo %v: %+v", cgo, f)
		}
	}
}
