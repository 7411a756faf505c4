package verify

import (
	"encoding/binary"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
)

const day = 24 * time.Hour

// turn says which packs are read as a whole.
//
// A sample needs no memory of what was read before: a pack's ID, which is a hash
// and so as good as random, gives it one day of a cycle of so many days that each
// takes its share. Packs have one size, more or less, so a share of the packs is
// one of the bytes.
type turn struct {
	days     uint64 // in a cycle; 0: none is read
	from, to uint64 // days since 1970 whose share it is, from itself not
}

func newTurn(o Options) turn {
	switch o.Mode {
	case Full:
		return turn{days: 1, to: 1}
	case Sample:
		today := number(o.Now)
		from := today - 1
		if since := number(o.Since); !o.Since.IsZero() && since < from {
			from = since
		}
		return turn{days: uint64(100+o.Percent-1) / uint64(o.Percent), from: from, to: today}
	}
	return turn{}
}

// number is that of a day, in UTC, from 1 on.
func number(t time.Time) uint64 { return uint64(max(1, t.Unix()/int64(day/time.Second))) }

// has reports whether it is the pack's turn.
func (t turn) has(pack repository.ID) bool {
	if t.days == 0 {
		return false
	}
	slot := binary.BigEndian.Uint64(pack[:]) % t.days
	ago := (t.to%t.days + t.days - slot) % t.days // days before t.to
	return ago < t.to-t.from
}
