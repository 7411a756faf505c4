package repository

// Added counts the blobs that were saved because the repository did not have them.
type Added struct {
	DataBlobs, TreeBlobs int64
	Bytes                int64 // before compression
	Stored               int64 // that they take in packs
}

func (a *Added) count(t BlobType, size, stored int64) {
	if t == TreeBlob {
		a.TreeBlobs++
	} else {
		a.DataBlobs++
	}
	a.Bytes += size
	a.Stored += stored
}

// Since is what was added after before was taken.
func (a Added) Since(before Added) Added {
	return Added{
		DataBlobs: a.DataBlobs - before.DataBlobs, TreeBlobs: a.TreeBlobs - before.TreeBlobs,
		Bytes: a.Bytes - before.Bytes, Stored: a.Stored - before.Stored,
	}
}

// Added counts what was saved since the repository was opened.
func (r *Repository) Added() Added {
	r.saver.mu.Lock()
	defer r.saver.mu.Unlock()
	return r.saver.added
}
