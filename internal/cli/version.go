package cli

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// built is what is known of how this program was built.
type built struct {
	version, compiler string
	cgo               bool
}

// readBuilt is built of what the compiler has left in the program.
func readBuilt() built {
	b := built{version: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.version, b.compiler = cmp.Or(info.Main.Version, b.version), info.GoVersion
	for _, s := range info.Settings {
		b.cgo = b.cgo || s.Key == "CGO_ENABLED" && s.Value == "1"
	}
	return b
}

func (b built) String() string {
	with := "without"
	if b.cgo {
		with = "with"
	}
	return fmt.Sprintf("%s, %s, %s cgo", b.version, b.compiler, with)
}

// finding is that of drydock doctor. With cgo, Landlock reaches the threads of a disk
// reader by a C library that signals one after the other until all have answered: on a
// busy machine that takes a second, and it does not work in a process namespace.
func (b built) finding() finding {
	f := finding{What: "build without cgo", OK: !b.cgo, Detail: b.String()}
	if b.cgo {
		f.Detail += ": disk readers have no process namespace, and are slow to start on a busy host"
		f.Fix = "make build (CGO_ENABLED=0)"
	}
	return f
}
