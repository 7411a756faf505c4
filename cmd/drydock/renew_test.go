package main_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/drydock-vm/drydock/internal/testserver"
)

// TestNightsOfObjectLock: a pack that later backups go on using is kept as long as they
// are, in the repository and in a copy.
func TestNightsOfObjectLock(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := retainHost(t)
	c, place := lockedBuckets(t, h, "first", "second")
	config := strings.Replace(retainConfig, "path: %[1]s/repository", place("first"), 1)
	config = strings.Replace(config, "retain: {last: 1, daily: 3}\n", "", 1)
	config = strings.Replace(config, "prune: {every: 48h}\n", "", 1) + "copies: [{" + place("second") + "}]\n"
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, config, h.dir), 0o600))

	for n, want := range []int{6, 6, 8} { // every second night all is renewed
		h.night(n, 0)
		for _, bucket := range []string{"first", "second"} {
			if days, objects := lockedDays(t, c, bucket); days != want || objects < 5 {
				t.Errorf("night %d: the %d objects of %s are kept for %d days at least, want %d", n, objects, bucket, days, want)
			}
		}
	}
}

// TestObjectLockAfterPrune: restic knows nothing of the retention, and what its prune has
// packed anew gets one at once.
func TestObjectLockAfterPrune(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := retainHost(t)
	c, place := lockedBuckets(t, h, "first", "second")
	config := strings.Replace(retainConfig, "path: %[1]s/repository", place("first"), 1)
	config = strings.Replace(config, ", daily: 3", "", 1)
	config = strings.Replace(config, "every: 48h", "every: 24h", 1) + "copies: [{" + place("second") + "}]\n"
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, config, h.dir), 0o600))
	for n := range 2 {
		report := h.night(n, 0)
		if report.Prune == nil || report.Copies[0].Prune == nil {
			t.Fatalf("night %d: nothing was pruned", n)
		}
		for _, bucket := range []string{"first", "second"} {
			if days, _ := lockedDays(t, c, bucket); days != 6+n {
				t.Errorf("night %d: the objects of %s are kept for %d days at least, want %d", n, bucket, days, 6+n)
			}
		}
	}
}

// lockedBuckets are buckets with object lock, and what a configuration says of one.
func lockedBuckets(t *testing.T, h *host, buckets ...string) (c *minio.Client, place func(string) string) {
	t.Helper()
	s := testserver.S3(t, t.TempDir())
	c, err := minio.New(s.Address, &minio.Options{Creds: credentials.NewStaticV4(testserver.AccessKey, testserver.SecretKey, "")})
	must(t, err)
	for _, bucket := range buckets {
		must(t, c.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{ObjectLocking: true}))
	}
	login := h.path("login")
	must(t, os.WriteFile(login, []byte("AWS_ACCESS_KEY_ID="+testserver.AccessKey+"\nAWS_SECRET_ACCESS_KEY="+testserver.SecretKey+"\n"), 0o600))
	return c, func(bucket string) string {
		return fmt.Sprintf("path: 's3:http://%s/%s', credentials_file: %s, s3: {bucket_lookup: path, object_lock: {mode: governance, days: 6}}", s.Address, bucket, login)
	}
}

// lockedDays is how many days the objects of a bucket are kept at least; 0 if there is
// one without a retention.
func lockedDays(t *testing.T, c *minio.Client, bucket string) (days, objects int) {
	t.Helper()
	days = 1 << 30
	for o := range c.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if strings.HasPrefix(o.Key, "locks/") {
			continue
		}
		info, err := c.StatObject(t.Context(), bucket, o.Key, minio.StatObjectOptions{})
		must(t, err)
		objects++
		text := info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date")
		if text == "" {
			t.Logf("%s/%s has no retention", bucket, o.Key)
			return 0, objects
		}
		until, err := time.Parse(time.RFC3339, text)
		must(t, err)
		days = min(days, int((time.Until(until)+12*time.Hour)/(24*time.Hour)))
	}
	return days, objects
}
