package memory_test

import (
	"testing"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/backendtest"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Backend { return &memory.Backend{} })
}
