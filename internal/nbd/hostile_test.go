package nbd_test

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/nbd"
)

const kib, mib = 1 << 10, 1 << 20

// small is a disk with one of each kind of extent.
func small() *memDisk {
	return newMemDisk(extent(disk.ExtentData, 64*kib), extent(disk.ExtentHole, 64*kib), extent(disk.ExtentZero, 100), extent(disk.ExtentData, 50*kib))
}

// TestOptions sends options with bad lengths and contents. Each costs an answer,
// and the client may go on.
func TestOptions(t *testing.T) {
	s := start(t, nbd.Export{Name: "a", Disk: small()}, nbd.Export{Name: "b", Description: "two", Disk: small()})
	long := strings.Repeat("x", 4097)
	allocation := text("base:allocation")
	for _, c := range []struct {
		name  string
		plain bool // without structured replies
		opt   uint32
		data  []byte
		want  []uint32
	}{
		{"list", true, optList, nil, []uint32{repServer, repServer, repAck}},
		{"list with data", true, optList, []byte{0}, []uint32{repInvalid}},
		{"structured", true, optStructured, nil, []uint32{repAck}},
		{"structured with data", true, optStructured, []byte{0}, []uint32{repInvalid}},
		{"peek", true, 4, text("a"), []uint32{repUnsup}},
		{"TLS", true, optStartTLS, nil, []uint32{repUnsup}},
		{"extended headers", true, optExtended, nil, []uint32{repUnsup}},
		{"unknown", true, 1 << 31, make([]byte, 65536), []uint32{repUnsup}},
		{"zero", true, 0, nil, []uint32{repUnsup}},

		{"info", true, optInfo, join(text("a"), uint16(0)), []uint32{repInfo, repInfo, repAck}},
		{"info with all", true, optInfo, join(text("b"), uint16(5), uint16(0), uint16(1), uint16(2), uint16(3), uint16(999)),
			[]uint32{repInfo, repInfo, repInfo, repInfo, repAck}},
		{"info of nothing", true, optInfo, nil, []uint32{repInvalid}},
		{"info of another", true, optInfo, join(text("c"), uint16(0)), []uint32{repUnknown}},
		{"name too long", true, optInfo, join(text(long), uint16(0)), []uint32{repInvalid}},
		{"name beyond the end", true, optInfo, join(uint32(0xffffffff), "a", uint16(0)), []uint32{repInvalid}},
		{"name over the count", true, optInfo, join(uint32(2), "a", uint16(0)), []uint32{repInvalid}},
		{"name no text", true, optInfo, join(text("\xff"), uint16(0)), []uint32{repInvalid}},
		{"name with NUL", true, optInfo, join(text("a\x00"), uint16(0)), []uint32{repInvalid}},
		{"without count", true, optInfo, text("a"), []uint32{repInvalid}},
		{"count beyond the end", true, optInfo, join(text("a"), uint16(0xffff)), []uint32{repInvalid}},
		{"count too small", true, optInfo, join(text("a"), uint16(1), uint16(0), uint16(0)), []uint32{repInvalid}},
		{"go to another", true, optGo, join(text("c"), uint16(0)), []uint32{repUnknown}},
		{"go to nothing", true, optGo, []byte{0, 0, 0}, []uint32{repInvalid}},

		{"contexts too early", true, optListMeta, join(text("a"), uint32(0)), []uint32{repInvalid}},
		{"context too early", true, optSetMeta, join(text("a"), uint32(1), allocation), []uint32{repInvalid}},
		{"all contexts", false, optListMeta, join(text("a"), uint32(0)), []uint32{repMeta, repAck}},
		{"contexts of a namespace", false, optListMeta, join(text("a"), uint32(2), text("base:"), text("x:")), []uint32{repMeta, repAck}},
		{"contexts of another namespace", false, optListMeta, join(text("a"), uint32(1), text("x:")), []uint32{repAck}},
		{"no context", false, optSetMeta, join(text("a"), uint32(0)), []uint32{repAck}},
		{"the namespace is no context", false, optSetMeta, join(text("a"), uint32(1), text("base:")), []uint32{repAck}},
		{"one context twice", false, optSetMeta, join(text("b"), uint32(2), allocation, allocation), []uint32{repMeta, repAck}},
		{"context of another export", false, optSetMeta, join(text("c"), uint32(1), allocation), []uint32{repUnknown}},
		{"queries beyond the end", false, optSetMeta, join(text("a"), uint32(0xffffffff), allocation), []uint32{repInvalid}},
		{"query beyond the end", false, optSetMeta, join(text("a"), uint32(1), uint32(16), "base:allocation"), []uint32{repInvalid}},
		{"query too long", false, optSetMeta, join(text("a"), uint32(1), text(long)), []uint32{repInvalid}},
		{"query no text", false, optSetMeta, join(text("a"), uint32(1), text("\xc0")), []uint32{repInvalid}},
		{"bytes behind the queries", false, optSetMeta, join(text("a"), uint32(1), allocation, "x"), []uint32{repInvalid}},
		{"no count of queries", false, optListMeta, text("a"), []uint32{repInvalid}},
		{"no export", false, optListMeta, nil, []uint32{repInvalid}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := s.connect(t, 3)
			if !c.plain {
				k.ask(optStructured, nil, repAck)
			}
			k.ask(c.opt, c.data, c.want...)
			k.ask(optList, nil, repServer, repServer, repAck)
			k.ask(optAbort, nil, repAck)
			k.closed()
		})
	}
	if r := s.reports(); len(r) != 0 {
		t.Errorf("reports: %v", r)
	}
}

// TestHandshakeEnds lists what ends a connection at once.
func TestHandshakeEnds(t *testing.T) {
	s := start(t, nbd.Export{Name: "a", Disk: small()})
	for _, c := range []struct {
		name  string
		flags uint32
		say   []byte
	}{
		{"old style", 0, nil},
		{"old style without zeroes", 2, nil},
		{"unknown flags", 7, nil},
		{"no option", 3, join("IHAVEOPS", uint32(optList), uint32(0))},
		{"export name of another", 3, optionBytes(optExportName, []byte("c"))},
		{"export name too long", 3, optionBytes(optExportName, make([]byte, 5000))},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := s.connect(t, c.flags)
			if c.say != nil { // else it may be closed already
				k.say(c.say)
			}
			k.closed()
		})
	}
	t.Run("option too long", func(t *testing.T) {
		k := s.connect(t, 3)
		k.say(join("IHAVEOPT", uint32(optGo), uint32(0xffffffff)))
		if kind, _, err := readOptionReply(k, optGo); err != nil || kind != repTooBig {
			t.Errorf("the answer is %#x, %v", kind, err)
		}
		k.closed()
	})
	t.Run("too many options", func(t *testing.T) {
		k := s.connect(t, 3)
		for range 4096 {
			k.ask(999, nil, repUnsup)
		}
		k.closed()
	})
	if r := s.reports(); len(r) != 8 {
		t.Errorf("%d reports: %v", len(r), r)
	}
}

func TestExportName(t *testing.T) {
	d := small()
	s := start(t, nbd.Export{Name: "a", Disk: d})
	for flags, zeroes := range map[uint32]int{1: 124, 3: 0} {
		for _, name := range []string{"a", ""} {
			k := s.connect(t, flags)
			k.say(optionBytes(optExportName, []byte(name)))
			if got, want := k.read(10+zeroes), join(uint64(d.Size()), uint16(0x503), make([]byte, zeroes)); !bytes.Equal(got, want) {
				t.Errorf("export %q: % x, want % x", name, got, want)
			}
			if got := k.expect(0, 0, cmdRead, 5, 1000); !bytes.Equal(got.payload, d.content[5:1005]) {
				t.Error("other content")
			}
		}
	}
}

// TestRequests sends requests that are refused. Each costs an answer, and the
// client may go on.
func TestRequests(t *testing.T) {
	d := small()
	s := start(t, nbd.Export{Name: "a", Disk: d})
	size := uint64(d.Size())
	for _, structured := range []bool{true, false} {
		k := s.begin(t, "a", structured)
		status := uint32(einval)
		if structured {
			status = 0
		}
		for _, c := range []struct {
			want       uint32
			flags, cmd uint16
			off        uint64
			length     uint32
		}{
			{0, 0, cmdRead, size - 1, 1},
			{einval, 0, cmdRead, size, 1},
			{einval, 0, cmdRead, size - 1, 2},
			{einval, 0, cmdRead, 1<<64 - 1, 1},
			{einval, 0, cmdRead, 1<<63 - 1, 1},
			{einval, 0, cmdRead, 1<<64 - 1, 1<<32 - 1},
			{einval, 0, cmdRead, 0, 0},
			{einval, 0, cmdRead, 0, 32*mib + 1},
			{einval, flagFUA, cmdRead, 0, 1},
			{einval, flagReqOne, cmdRead, 0, 1},
			{einval, 1 << 15, cmdRead, 0, 1},
			{0, 0, cmdCache, 0, uint32(size)},
			{einval, flagDF, cmdCache, 0, 1},
			{einval, 0, cmdCache, size, 1},
			{einval, 0, cmdCache, 0, 32*mib + 1},
			{einval, 0, cmdCache, 0, 0},
			{status, 0, cmdStatus, 0, uint32(size)},
			{status, flagReqOne, cmdStatus, 0, uint32(size)},
			{einval, flagDF, cmdStatus, 0, 1},
			{einval, 0, cmdStatus, 1, uint32(size)},
			{einval, 0, cmdStatus, 1<<64 - 1, 1<<32 - 1},
			{einval, 0, cmdStatus, 0, 0},
			{eperm, 0, cmdWrite, 0, 1},
			{eperm, flagFUA, cmdWrite, 1<<64 - 1, 100_000},
			{eperm, 0, cmdWrite, 0, 0},
			{eperm, 0, cmdTrim, 0, 1<<32 - 1},
			{eperm, flagFastZero, cmdZeroes, 0, 1<<32 - 1},
			{eperm, flagNoHole, cmdZeroes, 0, 1},
			{eperm, 0, cmdResize, 0, 0},
			{einval, 0, cmdFlush, 0, 0},
			{einval, 0, 9, 0, 0},
			{einval, 0xffff, 0xffff, 1<<64 - 1, 1<<32 - 1},
		} {
			if c.want == 0 && c.cmd == cmdCache && !structured {
				continue // its answer has no content
			}
			k.expect(c.want, c.flags, c.cmd, c.off, c.length)
		}
		if structured {
			k.expect(0, flagDF, cmdRead, 0, uint32(size))
		} else {
			k.expect(einval, flagDF, cmdRead, 0, 1)
		}
		k.say(requestBytes(0, cmdDisc, 0, 0, 0))
		k.closed()
	}
	if r := s.reports(); len(r) != 0 {
		t.Errorf("reports: %v", r)
	}
}

// TestContextLost asks for block status where the context was not agreed on for
// the export that is read.
func TestContextLost(t *testing.T) {
	s := start(t, nbd.Export{Name: "a", Disk: small()}, nbd.Export{Name: "b", Disk: small()})
	good := join(text("a"), uint32(1), text("base:allocation"))
	for name, second := range map[string][]byte{
		"another export":     nil,
		"none the next time": join(text("a"), uint32(0)),
		"failed next time":   join(text("a"), uint32(9)),
	} {
		t.Run(name, func(t *testing.T) {
			k := s.connect(t, 3)
			k.ask(optStructured, nil, repAck)
			k.ask(optSetMeta, good, repMeta, repAck)
			export := "b"
			if second != nil {
				export = "a"
				k.say(optionBytes(optSetMeta, second))
				if _, _, err := readOptionReply(k, optSetMeta); err != nil {
					t.Fatal(err)
				}
			}
			k.ask(optGo, join(text(export), uint16(0)), repInfo, repInfo, repAck)
			k.expect(einval, 0, cmdStatus, 0, 1)
		})
	}
}

// TestRequestEnds lists what ends a connection in the transmission phase.
func TestRequestEnds(t *testing.T) {
	s := start(t, nbd.Export{Name: "a", Disk: small()})
	for name, say := range map[string][]byte{
		"no request":      join(uint32(0x25609514), make([]byte, 24)),
		"write too much":  requestBytes(0, cmdWrite, 1, 0, 32*mib+1),
		"a reply":         join(uint32(0x67446698), make([]byte, 24)),
		"no more":         requestBytes(0, cmdDisc, 1, 0, 0),
		"flags of no use": requestBytes(0xffff, cmdDisc, 1, 1, 1),
	} {
		t.Run(name, func(t *testing.T) {
			k := s.begin(t, "a", true)
			k.expect(0, 0, cmdRead, 0, 1000)
			k.say(say)
			k.closed()
		})
	}
}

// TestCut hangs up after each byte of a session. The server is none the worse.
func TestCut(t *testing.T) {
	d := small()
	s := startWith(t, nbd.Options{Exports: []nbd.Export{{Name: "a", Disk: d}}, MaxConnections: 1000})
	whole := bytes.Join([][]byte{
		join(uint32(3)), optionBytes(optStructured, nil), optionBytes(optSetMeta, join(text("a"), uint32(1), text("base:allocation"))),
		goBytes("a"), requestBytes(0, cmdRead, 1, 0, 100*kib), requestBytes(0, cmdWrite, 2, 0, 10), make([]byte, 10),
		requestBytes(0, cmdStatus, 3, 0, 100*kib), requestBytes(0, cmdDisc, 4, 0, 0),
	}, nil)
	for n := range whole {
		k := &client{t, s.dial(t)}
		k.say(whole[:n])
		k.Close()
	}
	k := s.begin(t, "a", true)
	if got := k.expect(0, 0, cmdRead, 0, 1000); !bytes.Equal(got.payload, d.content[:1000]) {
		t.Error("other content")
	}
}

// TestStall leaves clients in every state, and has another served meanwhile.
func TestStall(t *testing.T) {
	d := newMemDisk(extent(disk.ExtentData, 8*mib))
	s := start(t, nbd.Export{Name: "a", Disk: d})
	s.dial(t)
	s.connect(t, 3).say([]byte("IHAVE"))
	s.begin(t, "a", false).say(requestBytes(0, cmdRead, 0, 0, 1)[:27])
	s.begin(t, "a", false).say(append(requestBytes(0, cmdWrite, 0, 0, 1000), make([]byte, 999)...))
	for _, structured := range []bool{true, false} {
		k := s.begin(t, "a", structured)
		for range 100 { // and never read what comes
			k.say(requestBytes(0, cmdRead, 0, 0, 8*mib))
		}
	}
	k := s.begin(t, "a", true)
	for i := range uint64(100) {
		if got := k.expect(0, 0, cmdRead, i*1000, 1000); !bytes.Equal(got.payload, d.content[i*1000:][:1000]) {
			t.Error("other content")
		}
	}
	s.stop() // fails where one of them holds it up
}

// TestTooMany refuses the client that is too many, and takes one when another
// has left.
func TestTooMany(t *testing.T) {
	s := startWith(t, nbd.Options{Exports: []nbd.Export{{Disk: small()}}, MaxConnections: 2})
	first := s.begin(t, "", true)
	s.begin(t, "", true)
	k := &client{t, s.dial(t)}
	k.closed()
	first.say(requestBytes(0, cmdDisc, 0, 0, 0))
	first.closed()
	for range 1000 {
		conn := s.dial(t)
		if n, _ := conn.Read(make([]byte, 1)); n == 1 {
			return
		}
	}
	t.Error("there is never room again")
}

// TestDamage reads damaged places.
func TestDamage(t *testing.T) {
	damaged, lost := small(), small()
	damaged.badFrom, damaged.badTo = 100, 101
	lost.noExtents = true
	gap := small()
	gap.extents = gap.extents[1:]
	s := start(t, nbd.Export{Name: "damaged", Disk: damaged}, nbd.Export{Name: "lost", Disk: lost}, nbd.Export{Name: "gap", Disk: gap})
	for _, name := range []string{"damaged", "lost", "gap"} {
		k := s.begin(t, name, true)
		got := k.expect(eio, 0, cmdRead, 0, 1000)
		if name == "damaged" && !strings.Contains(string(got.payload), `\u{1b}[31m is scratched`) {
			t.Errorf("the text is %q", got.payload)
		}
		k.expect(eio, 0, cmdCache, 0, 1000)
		want := uint32(0)
		if name == "damaged" {
			want = eio
			k.expect(0, 0, cmdRead, 101, 1000)
		} else {
			k.expect(eio, 0, cmdStatus, 0, 1000)
		}
		k.expect(want, flagDF, cmdRead, 0, 1000)
		s.begin(t, name, false).expect(want, 0, cmdRead, 0, 1000)
	}
	if r := s.reports(); len(r) != 4 {
		t.Errorf("%d reports: %v", len(r), r)
	}
}

// TestStatusBeforeDamage gets the extents in front of those that cannot be known.
func TestStatusBeforeDamage(t *testing.T) {
	d := small()
	d.extents = d.extents[:3]
	s := start(t, nbd.Export{Disk: d})
	got := s.begin(t, "", true).expect(0, 0, cmdStatus, 0, uint32(d.Size()))
	want := join(uint32(64*kib), uint32(0), uint32(64*kib), uint32(3))
	if !bytes.Equal(got.payload, want) {
		t.Errorf("extents % x, want % x", got.payload, want)
	}
}

func TestServeRefuses(t *testing.T) {
	d := small()
	for name, exports := range map[string][]nbd.Export{
		"none":    nil,
		"no disk": {{Name: "a"}},
		"twice":   {{Name: "a", Disk: d}, {Name: "a", Disk: d}},
		"no text": {{Name: "\xff", Disk: d}},
		"NUL":     {{Name: "a\x00", Disk: d}},
		"long":    {{Description: strings.Repeat("x", 4097), Disk: d}},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := nbd.Serve(t.Context(), l, nbd.Options{Exports: exports}); err == nil {
			t.Errorf("%s: served", name)
		}
		if _, err := l.Accept(); err == nil {
			t.Errorf("%s: the listener is open", name)
		}
	}
}
