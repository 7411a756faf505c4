package layout_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

func TestMain(m *testing.M) { disktest.Main(m) }
