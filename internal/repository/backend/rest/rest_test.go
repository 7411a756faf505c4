package rest_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/backendtest"
	"github.com/drydock-vm/drydock/internal/repository/backend/rest"
	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
	"github.com/drydock-vm/drydock/internal/testserver"
)

func connect(t testing.TB, address string, change ...func(*rest.Options)) *rest.Backend {
	t.Helper()
	tr, err := transport.HTTP(transport.Options{Connections: 5, Stall: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	o := rest.Options{URL: &url.URL{Scheme: "http", Host: address, Path: "/a place/"}, Transport: tr}
	for _, c := range change {
		c(&o)
	}
	return rest.New(o)
}

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		return connect(t, testserver.REST(t, t.TempDir()).Address)
	}, backendtest.SeenWhileSaved)
}
