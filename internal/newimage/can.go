package newimage

// Can returns nil if [Make] can make what o says of the filesystem, its size and the
// machine that writes it, and otherwise why not, with what to do instead.
func Can(o Options) error {
	_, err := (&maker{opts: o}).builder()
	return err
}
