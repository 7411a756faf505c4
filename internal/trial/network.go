package trial

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// userKeys are what stays of a network in user mode: the addresses that the guest may
// have been told.
var userKeys = strings.Fields("id net mask host hostname dhcpstart dns domainname ipv4 ipv6 ipv6-net ipv6-prefix ipv6-prefixlen ipv6-host ipv6-dns")

// cardKeys are what stays of a -nic: the card.
var cardKeys = strings.Fields("model mac addr")

// forwardJSON is the key of one of the ports that are forwarded, in JSON.
var forwardJSON = regexp.MustCompile(`^hostfwd\.[0-9]+\.str$`)

// network puts a network device into a network in which there is nobody.
func (w *rewriter) network(option, value string) error {
	w.apart = true
	s, err := parseObject(value, "type")
	if err != nil {
		return refuse("-"+option+" "+value, err.Error())
	}
	kind := s.get("type")
	if kind == "none" || option == "net" && kind == "nic" {
		w.add("-"+option, value)
		return nil
	}
	keep := userKeys
	if option == "nic" {
		keep = append(keep[:len(keep):len(keep)], cardKeys...)
	}
	out := settings{{"type", "user"}}
	if kind == "user" {
		out = append(out, s.only(keep...)...).with("restrict", "on")
		for _, one := range s {
			if one.key != "hostfwd" && !forwardJSON.MatchString(one.key) {
				continue
			}
			if err := w.forward(&out, one.value); err != nil {
				return err
			}
		}
	} else {
		out = append(out, s.only(append([]string{"id"}, cardKeys...)...)...).with("restrict", "on")
		if err := w.reach(&out); err != nil {
			return err
		}
	}
	// The first word has no key in the old options.
	w.add("-"+option, strings.TrimPrefix(out.String(), "type="))
	return nil
}

// forward keeps a forwarded port (tcp:ADDRESS:PORT-GUEST:PORT) if a probe asks it, with
// another port of the host.
func (w *rewriter) forward(out *settings, rule string) error {
	proto, rest, _ := strings.Cut(rule, ":")
	host, guest, ok := strings.Cut(rest, "-")
	_, port, err := net.SplitHostPort(host)
	if (proto != "tcp" && proto != "") || !ok || err != nil {
		return nil
	}
	return w.answer(out, guest, func(asked netip.AddrPort) bool {
		return asked.Addr().IsLoopback() && strconv.Itoa(int(asked.Port())) == port
	})
}

// reach gives the guest the addresses that probes ask, as its DHCP server would, and
// forwards the ports of the host's loopback to them.
func (w *rewriter) reach(out *settings) error {
	var guest netip.Addr
	for _, at := range w.Asked {
		a, ok := askedAddr(at)
		if !ok || w.out.Forward[at] != "" || a.Addr().IsLoopback() || !a.Addr().Is4() || guest.IsValid() && guest != a.Addr() {
			continue
		}
		if !guest.IsValid() {
			guest = a.Addr()
			*out = out.with(subnet(guest)...)
		}
		err := w.answer(out, a.String(), func(asked netip.AddrPort) bool { return asked == a })
		if err != nil {
			return err
		}
	}
	return nil
}

// answer has a free port of the host lead to a port of the guest, if a probe asks for
// it and has no answer yet.
func (w *rewriter) answer(out *settings, guest string, is func(netip.AddrPort) bool) error {
	for _, at := range w.Asked {
		a, ok := askedAddr(at)
		if !ok || w.out.Forward[at] != "" || !is(a) {
			continue
		}
		port, err := w.Port()
		if err != nil {
			return fmt.Errorf("find a port for the probe of %s: %w", at, err)
		}
		w.out.Forward[at] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		*out = out.with("hostfwd", fmt.Sprintf("tcp:127.0.0.1:%d-%s", port, guest))
	}
	return nil
}

// askedAddr reads HOST:PORT, where HOST is an address or localhost.
func askedAddr(at string) (netip.AddrPort, bool) {
	host, port, err := net.SplitHostPort(at)
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if err != nil {
		return netip.AddrPort{}, false
	}
	a, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	return a, err == nil
}

// subnet are the settings of a network in which the guest has this address, by DHCP or
// by its own word, and QEMU others: that of the router is the usual one.
func subnet(guest netip.Addr) []string {
	net4 := guest.As4()
	at := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{net4[0], net4[1], net4[2], last}) }
	router, dns := at(1), at(3)
	switch guest {
	case router:
		router = at(2)
	case dns:
		dns = at(4)
	}
	return []string{"net", at(0).String() + "/24", "host", router.String(), "dns", dns.String(), "dhcpstart", guest.String()}
}
