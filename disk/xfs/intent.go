package xfs

// intents is what the log says was begun and not ended.
type intents struct{}

func (i *intents) count() int                        { return 0 }
func (i *intents) refuseContent(ino uint64) error    { return nil }
func (i *intents) refuseAttributes(ino uint64) error { return nil }

type change struct{}

func (fs *Filesystem) changes(ino uint64, attr bool) []change { return nil }

func (m *mapping) changed(block uint64, s stretch) stretch { return s }
func (fs *Filesystem) recover() error                      { fs.head = makeLSN(1<<30, 0); return nil }

type overlay struct{}

func (o *overlay) apply(p []byte, off int64) bool   { return false }
func (d *device) isReplaced(off, length int64) bool { return false }
