package repository

// TreeEncoder turns the nodes of a folder into the bytes of a tree blob, the
// same bytes that restic writes for them.
type TreeEncoder struct{}

// NewTreeEncoder returns an encoder of an empty folder.
func NewTreeEncoder() *TreeEncoder { return &TreeEncoder{} }

// Add adds a node. Nodes come in ascending byte order of their names. The node is
// not kept.
func (e *TreeEncoder) Add(n *Node) error { return errSkeleton }

// Finish returns the tree blob. The encoder is then empty again.
func (e *TreeEncoder) Finish() []byte { return nil }

// EncodeTree returns the tree blob of nodes, which are in ascending byte order of
// their names.
func EncodeTree(nodes []Node) ([]byte, error) { return nil, errSkeleton }

// DecodeTree reads a tree blob. It refuses names that could leave the folder, and
// names that come twice or out of order.
func DecodeTree(data []byte) ([]Node, error) { return nil, errSkeleton }
