package ext4_test

import (
	"testing"

	"github.com/drydock-vm/drydock/internal/testmount"
)

func TestMain(m *testing.M) { testmount.Main(m) }
