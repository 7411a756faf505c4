package newimage

// Can returns nil if [Make] makes filesystems of that type, and otherwise why not, with
// what to do instead.
func Can(filesystem string) error {
	_, err := (&maker{opts: Options{Filesystem: filesystem}}).builder()
	return err
}
