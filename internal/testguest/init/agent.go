//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// agent is the guest's service. Its paths:
//
//	GET    /healthz            the image version
//	GET    /var/…              the content of a file
//	PUT    /var/…              writes a file and brings it to the disk
//	DELETE /var/…              removes a file or a folder with all in it
//	GET    /sha256/var/…       the digest of a file, in hex
//	POST   /fill/var/…?seed=&count=&size=   makes files of repeatable content
//	POST   /sync               brings everything to the disk
//	GET    /efivars/NAME       a variable of UEFI, behind its attributes
//	PUT    /efivars/NAME       sets one
func agent(version string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, version)
	})
	mux.HandleFunc("POST /sync", func(http.ResponseWriter, *http.Request) { unix.Sync() })
	handleIn := func(folder, pattern string, act func(http.ResponseWriter, *http.Request, string) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := act(w, r, filepath.Join(folder, r.PathValue("path"))); err != nil {
				status := http.StatusInternalServerError
				if errors.Is(err, fs.ErrNotExist) {
					status = http.StatusNotFound
				}
				http.Error(w, err.Error(), status)
			}
		})
	}
	handle := func(pattern string, act func(http.ResponseWriter, *http.Request, string) error) {
		handleIn("/var", pattern, act)
	}
	handle("GET /var/{path...}", getFile)
	handle("PUT /var/{path...}", putFile)
	handle("DELETE /var/{path...}", deleteFile)
	handle("GET /sha256/var/{path...}", sumFile)
	handle("POST /fill/var/{path...}", fill)
	handleIn(variables, "GET /efivars/{path}", getFile)
	handleIn(variables, "PUT /efivars/{path}", setVariable)
	return mux
}

func getFile(w http.ResponseWriter, _ *http.Request, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(w, file)
	return err
}

func putFile(_ http.ResponseWriter, r *http.Request, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.Copy(file, r.Body); err != nil {
		return err
	}
	return file.Sync()
}

// setVariable sets a variable of UEFI, which takes all of it in one write.
func setVariable(_ http.ResponseWriter, r *http.Request, path string) error {
	value, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, value, 0o644)
}

func deleteFile(_ http.ResponseWriter, _ *http.Request, path string) error {
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	unix.Sync()
	return nil
}

func sumFile(w http.ResponseWriter, _ *http.Request, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return err
	}
	fmt.Fprintf(w, "%x\n", sum.Sum(nil))
	return nil
}

// filesPerFolder keeps the folders that fill makes at a usual size.
const filesPerFolder = 100

// fill makes count files of up to size bytes each below path, as named and as
// filled as the seed says.
func fill(_ http.ResponseWriter, r *http.Request, path string) error {
	numbers := map[string]uint64{"seed": 1, "count": 100, "size": 4096}
	for name := range numbers {
		if text := r.URL.Query().Get(name); text != "" {
			number, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			numbers[name] = number
		}
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], numbers["seed"])
	content := rand.NewChaCha8(key)
	for i := range numbers["count"] {
		folder := filepath.Join(path, fmt.Sprintf("%03d", i/filesPerFolder))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		data := make([]byte, content.Uint64()%(numbers["size"]+1))
		if _, err := content.Read(data); err != nil {
			return err
		}
		name := filepath.Join(folder, fmt.Sprintf("%016x", content.Uint64()))
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
	}
	unix.Sync()
	return nil
}
