// Package tarball writes files and folders of any filesystem as a tar archive.
package tarball
