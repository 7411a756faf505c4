package ondisk

import (
	"fmt"
	"strings"
)

// FeatureNames lists the bits of set, by name where they have one. The others have the
// prefix, which says what they are bits of.
func FeatureNames[F ~uint32 | ~uint64](set F, names map[F]string, prefix string) string {
	var list []string
	for bit := F(1); bit != 0; bit <<= 1 {
		switch {
		case set&bit == 0:
		case names[bit] != "":
			list = append(list, names[bit])
		default:
			list = append(list, fmt.Sprintf("%s bit %#x", prefix, uint64(bit)))
		}
	}
	return strings.Join(list, ", ")
}
