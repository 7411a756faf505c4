// Package layering holds the test that keeps the house's floors in order: which
// package may import which. There is nothing in it to import.
package layering
