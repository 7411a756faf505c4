package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/backendtest"
	"github.com/drydock-vm/drydock/internal/repository/backend/retry"
	"github.com/drydock-vm/drydock/internal/repository/backend/s3"
	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
	"github.com/drydock-vm/drydock/internal/testserver"
)

const (
	bucket = "backups"
	prefix = "a/drydock"
)

var handle = backend.Handle{Type: backend.PackFile, Name: strings.Repeat("ab", 32)}

// server starts a server with a bucket, and returns the bucket's folder too.
func server(t *testing.T) (*testserver.Server, string) {
	t.Helper()
	dir := t.TempDir()
	s := testserver.S3(t, dir)
	if err := admin(t, s.Address).MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s, filepath.Join(dir, bucket)
}

func admin(t *testing.T, address string) *minio.Client {
	t.Helper()
	c, err := minio.New(address, &minio.Options{Creds: credentials.NewStaticV4(testserver.AccessKey, testserver.SecretKey, "")})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func connect(t *testing.T, address string, change ...func(*s3.Options)) *s3.Backend {
	t.Helper()
	tr, err := transport.HTTP(transport.Options{Connections: 5, Stall: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	o := s3.Options{
		Endpoint: address, Plain: true, Bucket: bucket, Prefix: prefix,
		AccessKey: testserver.AccessKey, SecretKey: testserver.SecretKey, Transport: tr,
	}
	for _, c := range change {
		c(&o)
	}
	be, err := s3.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return be
}

func TestBackend(t *testing.T) {
	s, _ := server(t)
	n := 0
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		n++
		return connect(t, s.Address, func(o *s3.Options) { o.Prefix = fmt.Sprint(n) })
	})
}

func TestRestic(t *testing.T) {
	s, _ := server(t)
	backendtest.Judge(t, retry.New(connect(t, s.Address), retry.Options{}), backendtest.Place{
		Location: "s3:http://" + s.Address + "/" + bucket + "/" + prefix,
		Env:      []string{"AWS_ACCESS_KEY_ID=" + testserver.AccessKey, "AWS_SECRET_ACCESS_KEY=" + testserver.SecretKey},
		Parity:   5,
	})
}

// The layout is restic's, with a prefix and without one.
func TestLayout(t *testing.T) {
	s, dir := server(t)
	for _, prefix := range []string{prefix, ""} {
		be := connect(t, s.Address, func(o *s3.Options) { o.Prefix = prefix })
		for h, name := range map[backend.Handle]string{
			handle:                     "data/ab/" + handle.Name,
			{Type: backend.ConfigFile}: "config",
			{Type: backend.LockFile, Name: handle.Name}: "locks/" + handle.Name,
		} {
			if err := be.Save(t.Context(), h, []byte("x")); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, prefix, name)); err != nil {
				t.Error(err)
			}
		}
	}
}

// Buckets as names of hosts: nothing but the address is asked another way.
func TestVirtualHost(t *testing.T) {
	s, dir := server(t)
	var asked []string
	be := connect(t, testserver.VirtualDomain, func(o *s3.Options) {
		o.Lookup, o.Region = s3.LookupDNS, "us-east-1"
		o.Transport = &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			asked = append(asked, address)
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.Address)
		}}
	})
	if err := be.Save(t.Context(), handle, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, prefix, "data", "ab", handle.Name)); err != nil || asked[0] != bucket+"."+testserver.VirtualDomain+":80" {
		t.Errorf("asked %q, %v", asked, err)
	}
}

// What was uploaded with a retention cannot be destroyed with the keys of the host.
// Locks can: they come and go.
func TestObjectLock(t *testing.T) {
	s := testserver.S3(t, t.TempDir())
	c := admin(t, s.Address)
	if err := c.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{ObjectLocking: true}); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []s3.Retention{s3.Governance, s3.Compliance} {
		be := connect(t, s.Address, func(o *s3.Options) {
			o.Prefix, o.Lock = string(mode), s3.ObjectLock{Mode: mode, For: 30 * 24 * time.Hour}
		})
		content := []byte("what ransomware would like to destroy")
		if err := be.Save(t.Context(), handle, content); err != nil {
			t.Fatal(err)
		}
		name := string(mode) + "/data/ab/" + handle.Name
		info, err := c.StatObject(t.Context(), bucket, name, minio.StatObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		until, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		if got := info.Metadata.Get("X-Amz-Object-Lock-Mode"); err != nil || got != string(mode) || time.Until(until) < 29*24*time.Hour || time.Until(until) > 31*24*time.Hour {
			t.Fatalf("retention %s until %v, %v; want %s", got, until, err, mode)
		}
		if err := c.RemoveObject(t.Context(), bucket, name, minio.RemoveObjectOptions{VersionID: info.VersionID}); err == nil {
			t.Errorf("%s: the version was destroyed", mode)
		}
		// Hidden, and brought back by removing the marker.
		if err := be.Remove(t.Context(), handle); err != nil {
			t.Errorf("%s: remove: %v", mode, err)
		}
		for o := range c.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Prefix: name, WithVersions: true}) {
			if o.IsDeleteMarker {
				if err := c.RemoveObject(t.Context(), bucket, name, minio.RemoveObjectOptions{VersionID: o.VersionID}); err != nil {
					t.Errorf("%s: remove the marker: %v", mode, err)
				}
			}
		}
		p := make([]byte, len(content))
		if _, err := be.ReadAt(t.Context(), handle, p, 0); err != nil || string(p) != string(content) {
			t.Errorf("%s: after the removal: %q, %v", mode, p, err)
		}
		replacedInLock(t, be, c, name, content)

		// Twenty days later it is renewed, and not when there is nothing to renew.
		later := connect(t, s.Address, func(o *s3.Options) {
			o.Prefix, o.Lock = string(mode), s3.ObjectLock{Mode: mode, For: 30 * 24 * time.Hour}
			o.Now = func() time.Time { return time.Now().Add(20 * 24 * time.Hour) }
		})
		if err := later.Renew(t.Context(), handle); err != nil {
			t.Errorf("%s: renew: %v", mode, err)
		}
		if info, err = c.StatObject(t.Context(), bucket, name, minio.StatObjectOptions{}); err != nil {
			t.Fatal(err)
		}
		until, err = time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		if err != nil || time.Until(until) < 49*24*time.Hour || time.Until(until) > 51*24*time.Hour {
			t.Errorf("%s: after the renewal it is kept until %v, %v", mode, until, err)
		}
		// Somebody has configured fewer days: what is kept for longer stays so, and is
		// no reason to renew nothing else.
		fewer := connect(t, s.Address, func(o *s3.Options) {
			o.Prefix, o.Lock = string(mode), s3.ObjectLock{Mode: mode, For: 24 * time.Hour}
		})
		if err := fewer.Renew(t.Context(), handle); err != nil {
			t.Errorf("%s: renewal for less: %v", mode, err)
		}
		if info, err = c.StatObject(t.Context(), bucket, name, minio.StatObjectOptions{}); err != nil {
			t.Fatal(err)
		}
		if again, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date")); err != nil || !again.Equal(until) {
			t.Errorf("%s: it was kept until %v, and is until %v, %v", mode, until, again, err)
		}
		if err := later.Renew(t.Context(), backend.Handle{Type: backend.PackFile, Name: strings.Repeat("cd", 32)}); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s: renewal of no file: %v", mode, err)
		}

		lock := backend.Handle{Type: backend.LockFile, Name: handle.Name}
		if err := be.Save(t.Context(), lock, nil); err != nil {
			t.Fatal(err)
		}
		if err := later.Renew(t.Context(), lock); err != nil {
			t.Errorf("%s: renewal of a lock: %v", mode, err)
		}
		info, err = c.StatObject(t.Context(), bucket, string(mode)+"/locks/"+handle.Name, minio.StatObjectOptions{})
		if got := info.Metadata.Get("X-Amz-Object-Lock-Mode"); err != nil || got != "" {
			t.Errorf("a lock file has a retention: %q, %v", got, err)
		}
	}
}

// replacedInLock replaces a file that has a retention: it is a new version, with a
// retention too, and the old one is still there.
func replacedInLock(t *testing.T, be *s3.Backend, c *minio.Client, name string, content []byte) {
	t.Helper()
	if err := be.Replace(t.Context(), handle, []byte("repaired")); err != nil {
		t.Fatalf("replace: %v", err)
	}
	p := make([]byte, len("repaired"))
	if _, err := be.ReadAt(t.Context(), handle, p, 0); err != nil || string(p) != "repaired" {
		t.Errorf("after it was replaced: %q, %v", p, err)
	}
	old := 0
	for o := range c.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Prefix: name, WithVersions: true}) {
		if o.Size == int64(len(content)) {
			old++
		}
		if err := c.RemoveObject(t.Context(), bucket, name, minio.RemoveObjectOptions{VersionID: o.VersionID}); err == nil {
			t.Errorf("a version of %d bytes was destroyed", o.Size)
		}
	}
	if old != 1 {
		t.Errorf("the damaged file is there %d times", old)
	}
}

// Each is one clear line, with the fix, and without the secret.
func TestRefused(t *testing.T) {
	s, _ := server(t)
	config := backend.Handle{Type: backend.ConfigFile}
	for name, test := range map[string]struct {
		change func(*s3.Options)
		want   string
	}{
		"a wrong secret": {func(o *s3.Options) { o.SecretKey = "another secret" }, "repository.credentials_file"},
		"a wrong key":    {func(o *s3.Options) { o.AccessKey = "another" }, "repository.credentials_file"},
		"no bucket":      {func(o *s3.Options) { o.Bucket = "nowhere" }, "aws s3api create-bucket --bucket nowhere"},
		"no lock": {func(o *s3.Options) { o.Lock = s3.ObjectLock{Mode: s3.Compliance, For: 24 * time.Hour} },
			"object lock must be switched on"},
	} {
		be := connect(t, s.Address, test.change)
		err := be.Save(t.Context(), config, []byte("x"))
		if !errors.Is(err, backend.ErrRefused) || !strings.Contains(err.Error(), test.want) || strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "another secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := s3.New(s3.Options{Endpoint: s.Address, Bucket: bucket})
	if !errors.Is(err, backend.ErrRefused) || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("no keys: %v", err)
	}
}

func TestHangAndGone(t *testing.T) {
	s, _ := server(t)
	be := connect(t, s.Address, func(o *s3.Options) {
		var err error
		if o.Transport, err = transport.HTTP(transport.Options{Stall: 300 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	})
	if err := be.Save(t.Context(), handle, []byte("x")); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	if _, err := be.Stat(t.Context(), handle); err == nil || !strings.Contains(err.Error(), "no byte moved for 300ms") {
		t.Errorf("hung: %v", err)
	}
	s.Resume()
	s.Stop()
	var op *net.OpError
	if _, err := be.Stat(t.Context(), handle); !errors.As(err, &op) || !strings.Contains(err.Error(), "is the server up") {
		t.Errorf("gone: %v", err)
	}
}

// FuzzAnswer: whatever a server answers, names are valid, an end comes, and errors
// are one safe line.
func FuzzAnswer(f *testing.F) {
	const list = `<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>%v</IsTruncated><NextContinuationToken>x</NextContinuationToken><Contents><Key>%s</Key><Size>%d</Size></Contents></ListBucketResult>`
	f.Add(fmt.Sprintf(list, false, prefix+"/data/ab/"+handle.Name, 5), 200)
	f.Add(fmt.Sprintf(list, false, prefix+"/data/../../x", -5), 200)
	f.Add(`<Error><Code>AccessDenied</Code><Message>`+"\x1b[31m"+`</Message></Error>`, 403)
	f.Add(`<ListBucketResult><Contents>`, 200)
	f.Add(``, 301)
	f.Fuzz(func(t *testing.T, body string, status int) {
		if status < 200 || status > 599 || strings.Contains(body, "<IsTruncated>true") {
			return // the next page would be this one: the time of an operation bounds that
		}
		be, err := s3.New(s3.Options{Endpoint: "host", Bucket: bucket, Prefix: prefix, Region: "us-east-1", AccessKey: "k", SecretKey: "s", Transport: answer{body, status}})
		if err != nil {
			t.Fatal(err)
		}
		check := func(err error) {
			if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("the error is not one safe line: %q", err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		check(be.List(ctx, backend.PackFile, func(info backend.FileInfo) error {
			if !backend.ValidName(info.Name) {
				t.Errorf("%q was listed", info.Name)
			}
			return nil
		}))
		p := make([]byte, 3, 10)
		if n, err := be.ReadAt(ctx, handle, p, 0); n > 3 || string(p[3:10]) != strings.Repeat("\x00", 7) {
			t.Errorf("read %d, %v", n, err)
		}
		_, err = be.Stat(ctx, handle)
		check(err)
		check(be.Save(ctx, handle, []byte("x")))
	})
}

// answer is a transport that knows one answer.
type answer struct {
	body   string
	status int
}

func (a answer) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: a.status, Status: fmt.Sprint(a.status), Header: http.Header{}, ContentLength: int64(len(a.body)),
		Body: io.NopCloser(strings.NewReader(a.body)), Request: r,
	}, nil
}

// tripper is a transport that is a function.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Another host that saves the same file between our look and our upload wins.
func TestAnotherWriter(t *testing.T) {
	s, _ := server(t)
	other := connect(t, s.Address)
	be := connect(t, s.Address, func(o *s3.Options) {
		next := o.Transport
		o.Transport = tripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut {
				if err := other.Save(t.Context(), handle, []byte("theirs")); err != nil {
					t.Error(err)
				}
			}
			return next.RoundTrip(r)
		})
	})
	if err := be.Save(t.Context(), handle, []byte("ours")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("save: %v", err)
	}
	p := make([]byte, 6)
	if _, err := be.ReadAt(t.Context(), handle, p, 0); err != nil || string(p) != "theirs" {
		t.Errorf("the file holds %q, %v", p, err)
	}
}

// A server that does not know If-None-Match is asked without it.
func TestNoConditions(t *testing.T) {
	puts := 0
	be := connect(t, "host", func(o *s3.Options) {
		o.Region = "us-east-1"
		o.Transport = tripper(func(r *http.Request) (*http.Response, error) {
			switch {
			case r.Method == http.MethodHead:
				return answer{"", http.StatusNotFound}.RoundTrip(r)
			case r.Header.Get("If-None-Match") != "":
				return answer{"<Error><Code>NotImplemented</Code></Error>", http.StatusNotImplemented}.RoundTrip(r)
			}
			puts++
			return answer{"", http.StatusOK}.RoundTrip(r)
		})
	})
	if err := be.Save(t.Context(), handle, []byte("x")); err != nil || puts != 1 {
		t.Errorf("%d uploads, %v", puts, err)
	}
}

// What may pass is not refused.
func TestTransient(t *testing.T) {
	for code, status := range map[string]int{"SlowDown": 503, "InternalError": 500, "RequestTimeout": 400, "ConditionalRequestConflict": 409, "BadDigest": 400} {
		be := connect(t, "host", func(o *s3.Options) {
			o.Region, o.Transport = "us-east-1", answer{"<Error><Code>" + code + "</Code><Message>later</Message></Error>", status}
		})
		err := be.List(t.Context(), backend.PackFile, func(backend.FileInfo) error { return nil })
		if err == nil || errors.Is(err, backend.ErrRefused) || !strings.Contains(err.Error(), code) {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// An answer without an end is cut off.
func TestEndlessAnswer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, `<ListBucketResult><Contents><Key>`)
		for err == nil {
			_, err = io.WriteString(w, strings.Repeat("a", 1<<16))
		}
	}))
	defer s.Close()
	be := connect(t, strings.TrimPrefix(s.URL, "http://"), func(o *s3.Options) { o.Region = "us-east-1" })
	err := be.List(t.Context(), backend.PackFile, func(backend.FileInfo) error { return nil })
	if !errors.Is(err, backend.ErrHostile) {
		t.Errorf("list: %v", err)
	}
}
