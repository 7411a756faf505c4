// Package nbd serves disks to the programs of this host over the NBD protocol,
// for reading only: nbdcopy, qemu-img, nbd-client and QEMU itself see what a
// guest sees, whatever format the disk is kept in.
//
// It supports the fixed newstyle handshake, structured replies, the metadata
// context base:allocation, reads with and without holes, block status and
// prefetching. Writes are refused; TLS and extended headers are not offered.
//
// It promises that a client, which is not trusted, can cost no more than its own
// connection: what it sends is bounded by named limits before memory is spent on
// it, a client that breaks the protocol is cut off, and one that stalls holds
// nothing that others need.
//
//	l, err := nbd.Listen("/run/drydock/disk.sock")
//	err = nbd.Serve(ctx, l, nbd.Options{Exports: []nbd.Export{{Name: "web1", Disk: d}}})
//
// The protocol is doc/proto.md of the NetworkBlockDevice project
// (github.com/NetworkBlockDevice/nbd); section names in comments are from there.
package nbd
