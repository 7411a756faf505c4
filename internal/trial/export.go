package trial

import "net/url"

// Export is the URL by which QEMU finds an export of an NBD server at a socket.
func Export(socket, name string) string {
	u := url.URL{Scheme: "nbd+unix", Path: "/" + name, RawQuery: url.Values{"socket": {socket}}.Encode()}
	return u.String()
}
