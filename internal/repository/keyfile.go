package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// keyFile is the content of a key file, which is plain JSON. Data is the
// repository's key, sealed with the key that the password gives.
type keyFile struct {
	Created  time.Time `json:"created"`
	Username string    `json:"username"`
	Hostname string    `json:"hostname"`
	KDF      string    `json:"kdf"`
	N        int       `json:"N"`
	R        int       `json:"r"`
	P        int       `json:"p"`
	Salt     []byte    `json:"salt"`
	Data     []byte    `json:"data"`
}

const (
	// kdfScrypt is the only one that restic knows.
	kdfScrypt = "scrypt"
	// maxKeyFileSize bounds a key file. Restic's have some 450 bytes.
	maxKeyFileSize = 64 << 10
	// maxKeys is how many key files are tried, as restic does: each costs half
	// a second, and a server can put any number there.
	maxKeys = 20
)

// errTooManyKeys stops the listing of key files.
var errTooManyKeys = errors.New("too many keys")

// findKey tries the key files until the password opens one.
func findKey(ctx context.Context, be backend.Backend, password []byte) (*crypto.Key, error) {
	const op = "open repository"
	var found []backend.FileInfo
	err := be.List(ctx, backend.KeyFile, func(info backend.FileInfo) error {
		if len(found) == maxKeys {
			return errTooManyKeys
		}
		found = append(found, info)
		return nil
	})
	tooMany := errors.Is(err, errTooManyKeys)
	if err != nil && !tooMany {
		return nil, &Error{Op: op, File: string(backend.KeyFile), Err: err}
	}
	wrong := 0
	var cause error
	for _, info := range found {
		key, err := openKey(ctx, be, info, password)
		switch {
		case err == nil:
			return key, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, crypto.ErrUnauthenticated):
			wrong++
		case cause == nil:
			cause = err // another key may still open it
		default:
			cause = fmt.Errorf("%w; %w", cause, err)
		}
	}
	if wrong == 0 && !tooMany {
		if cause == nil {
			cause = errors.New("there are no keys")
		}
		return nil, &Error{Op: op, File: string(backend.KeyFile), Err: cause, Hint: "without a key nothing can be read: restore the folder keys from a copy of the repository"}
	}
	hint := fmt.Sprintf("it opens none of the %d keys; look at the file that the password comes from, a newline more or less counts too", len(found))
	if tooMany {
		hint = fmt.Sprintf("only %d keys are tried, and there are more; remove some with restic key remove", maxKeys)
	}
	if cause != nil {
		cause = fmt.Errorf("%w; besides, %w", ErrWrongKey, cause)
	} else {
		cause = ErrWrongKey
	}
	return nil, &Error{Op: op, Err: cause, Hint: hint}
}

// openKey opens one key file. A password that is not its is
// [crypto.ErrUnauthenticated].
func openKey(ctx context.Context, be backend.Backend, info backend.FileInfo, password []byte) (*crypto.Key, error) {
	const op = "read key"
	h := backend.Handle{Type: backend.KeyFile, Name: info.Name}
	data, err := readSized(ctx, be, op, h, info.Size, maxKeyFileSize)
	if err != nil {
		return nil, err
	}
	if Hash(data).String() != info.Name {
		return nil, damaged(op, h, "the content has another hash")
	}
	var kf keyFile
	if err := json.Unmarshal(data, &kf); err != nil {
		return nil, damaged(op, h, "%w", err)
	}
	if kf.KDF != kdfScrypt {
		return nil, &Error{Op: op, File: h.String(), Err: fmt.Errorf("%w: key derivation %.20q", ErrFormat, kf.KDF)}
	}
	userKey, err := crypto.Derive(crypto.Params{N: kf.N, R: kf.R, P: kf.P}, kf.Salt, password)
	if err != nil {
		return nil, damaged(op, h, "%w", err)
	}
	plain, err := userKey.Open(kf.Data)
	if err != nil {
		return nil, err
	}
	var key crypto.Key
	if err := json.Unmarshal(plain, &key); err != nil {
		return nil, damaged(op, h, "%w", err)
	}
	return &key, nil
}

// saveKey stores the repository's key so that the password opens it.
func saveKey(ctx context.Context, be backend.Backend, key *crypto.Key, password []byte, p crypto.Params, now time.Time) error {
	kf := keyFile{Created: now, KDF: kdfScrypt, N: p.N, R: p.R, P: p.P, Salt: crypto.NewSalt()}
	me := whoAmI()
	kf.Username, kf.Hostname = me.Username, me.Hostname
	userKey, err := crypto.Derive(p, kf.Salt, password)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(key)
	if err != nil {
		return err
	}
	kf.Data = userKey.Seal(nil, plain)
	data, err := json.Marshal(kf)
	if err != nil {
		return err
	}
	return be.Save(ctx, backend.Handle{Type: backend.KeyFile, Name: Hash(data).String()}, data)
}

// whoAmI returns what a lock or key file says of its maker. What cannot be found
// out is left empty, as restic does.
func whoAmI() LockInfo {
	me := LockInfo{PID: os.Getpid()}
	me.Hostname, _ = os.Hostname()
	me.UID, me.GID = uint32(os.Getuid()), uint32(os.Getgid())
	me.Username = strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		me.Username = u.Username
	}
	me.Process = thisProcess()
	return me
}
