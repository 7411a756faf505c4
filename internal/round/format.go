package round

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// newRoundID names a round, or a build, so that names sort by time. The random
// end keeps two of one second apart.
func newRoundID(now time.Time) string {
	var b [2]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return now.UTC().Format("20060102-150405") + "-" + hex.EncodeToString(b[:])
}

// Bytes prints a size for people, in binary units.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
