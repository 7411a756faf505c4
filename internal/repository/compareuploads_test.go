package repository_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/rest"
	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
	"github.com/drydock-vm/drydock/internal/testserver"
)

// The line to a server that is far away: what a window of 1 MiB lets through it is what
// one connection gets, however wide it is.
const (
	farDelay = 80 * time.Millisecond                               // one way
	farRate  = (1 << 20) * int(time.Second/time.Millisecond) / 160 // bytes in a second
)

// TestCompareUploads stores 24 packs on a server that is far away, with as many uploads at
// once as its connections allow, and with two.
func TestCompareUploads(t *testing.T) {
	benchdisk.Wanted(t)
	server := testserver.REST(t, t.TempDir())
	address := far(t, server.Address)
	blobs := make([][]byte, 24*16)
	for i := range blobs {
		blobs[i] = make([]byte, 1<<20)
		_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(blobs[i])
	}
	tries := 0
	contender := func(name string, uploads int) benchdisk.Contender {
		return benchdisk.Contender{Name: name, Run: func() error {
			tr, err := transport.HTTP(transport.Options{Connections: 5, Stall: time.Minute})
			if err != nil {
				return err
			}
			defer tr.CloseIdleConnections()
			tries++
			be := rest.New(rest.Options{URL: &url.URL{Scheme: "http", Host: address, Path: fmt.Sprintf("/%d/", tries)}, Transport: tr})
			r, err := repository.Create(t.Context(), be, []byte("x"), repository.CreateOptions{
				Options: repository.Options{Compression: repository.CompressionOff, Uploads: uploads},
				KDF:     &crypto.Params{N: 1 << 10, R: 8, P: 1},
			})
			if err != nil {
				return err
			}
			for _, b := range blobs {
				if _, _, err := r.SaveBlob(t.Context(), repository.DataBlob, b); err != nil {
					return err
				}
			}
			return r.Flush(t.Context())
		}}
	}
	times := benchdisk.Compare(t, 3, nil, contender("as many as there are connections", 5), contender("two", 0))
	if times[0] >= times[1] {
		t.Errorf("more uploads at once take %s, and two %s", times[0], times[1])
	}
}

// far returns an address behind which the server at another one is far away.
func far(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			server, err := net.Dial("tcp", address)
			if err != nil {
				_ = near.Close()
				continue
			}
			go slowly(server, near)
			go slowly(near, server)
		}
	}()
	return l.Addr().String()
}

// slowly passes on what comes from one connection to another, at farRate and farDelay
// later, until either ends.
func slowly(to, from net.Conn) {
	type piece struct {
		data []byte
		due  time.Time
	}
	line := make(chan piece, 1<<10)
	go func() {
		defer close(line)
		for sent := time.Now(); ; {
			data := make([]byte, 128<<10)
			n, err := from.Read(data)
			if err != nil {
				return
			}
			if now := time.Now(); sent.Before(now) {
				sent = now
			}
			sent = sent.Add(time.Second * time.Duration(n) / time.Duration(farRate))
			time.Sleep(time.Until(sent))
			line <- piece{data[:n], sent.Add(farDelay)}
		}
	}()
	defer from.Close()
	defer to.Close()
	for p := range line {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	_ = from.Close() // ends who fills the line
	for range line {
	}
}
