// Package crypto is the cryptography of restic's repository format: AES-256 in
// counter mode, a Poly1305-AES authenticator over the ciphertext, and scrypt to
// turn a password into keys. The layout of everything encrypted is
//
//	offset  size  field
//	0       16    nonce, random; also the counter's first value
//	16      n     ciphertext, as long as the plaintext
//	16+n    16    Poly1305-AES of the ciphertext under the nonce
//
// (restic/restic, doc/design.rst, "Keys, Encryption and MAC"). Nothing is
// decrypted before its authenticator was checked.
package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	// Deprecated for new designs, and the only one there is: Poly1305-AES wants
	// its one-time key from AES, so chacha20poly1305 cannot stand in.
	//lint:ignore SA1019 see above
	"golang.org/x/crypto/poly1305"
)

const (
	// NonceSize is the bytes before the ciphertext.
	NonceSize = aes.BlockSize
	// Overhead is how many bytes longer than the plaintext the sealed form is.
	Overhead = NonceSize + poly1305.TagSize

	encryptSize = 32 // AES-256
	macKSize    = 16 // AES-128, makes Poly1305's one-time key
	macRSize    = 16 // Poly1305
	keySize     = encryptSize + macKSize + macRSize
)

// ErrUnauthenticated is of data that was not sealed with this key, or that was
// changed since.
var ErrUnauthenticated = errors.New("authentication failed")

// Key seals and opens. It is safe for concurrent use.
type Key struct {
	encrypt cipher.Block
	macK    cipher.Block
	raw     [keySize]byte // encrypt || k || r
}

// NewKey returns a random key.
func NewKey() (*Key, error) {
	var raw [keySize]byte
	_, _ = rand.Read(raw[:]) // never fails: see its documentation
	return keyFrom(raw)
}

// keyFrom makes a key of its 64 bytes: encrypt, k and r.
func keyFrom(raw [keySize]byte) (*Key, error) {
	encrypt, k, r := raw[:encryptSize], raw[encryptSize:encryptSize+macKSize], raw[encryptSize+macKSize:]
	if allZero(encrypt) || allZero(k) || allZero(r) {
		return nil, errors.New("a part of the key is zero")
	}
	encryptBlock, err := aes.NewCipher(encrypt)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	macBlock, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("make authenticator: %w", err)
	}
	return &Key{encrypt: encryptBlock, macK: macBlock, raw: raw}, nil
}

func allZero(p []byte) bool {
	var sum byte
	for _, b := range p {
		sum |= b
	}
	return sum == 0
}

// oneTime returns the key of Poly1305 for one nonce: r || AES_k(nonce).
func (k *Key) oneTime(nonce []byte) *[32]byte {
	var key [32]byte
	copy(key[:16], k.raw[encryptSize+macKSize:])
	k.macK.Encrypt(key[16:], nonce)
	return &key
}

// Seal appends the sealed form of plaintext to dst, which must not overlap it.
func (k *Key) Seal(dst, plaintext []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, NonceSize)...)
	dst = append(dst, plaintext...)
	return k.SealInPlace(dst, start)
}

// SealInPlace seals what stands in buf from start: NonceSize bytes of no meaning
// followed by the plaintext. It returns buf with the authenticator appended.
func (k *Key) SealInPlace(buf []byte, start int) []byte {
	nonce, text := buf[start:start+NonceSize], buf[start+NonceSize:]
	_, _ = rand.Read(nonce) // never fails: see its documentation
	cipher.NewCTR(k.encrypt, nonce).XORKeyStream(text, text)
	var tag [poly1305.TagSize]byte
	poly1305.Sum(&tag, text, k.oneTime(nonce))
	return append(buf, tag[:]...)
}

// Open checks and decrypts sealed in place, and returns the plaintext within it.
// It returns [ErrUnauthenticated], and leaves sealed as it was, if that is not
// what Seal made with this key.
func (k *Key) Open(sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, fmt.Errorf("%w: %d bytes are too short", ErrUnauthenticated, len(sealed))
	}
	nonce, text := sealed[:NonceSize], sealed[NonceSize:len(sealed)-poly1305.TagSize]
	var tag [poly1305.TagSize]byte
	copy(tag[:], sealed[len(sealed)-poly1305.TagSize:])
	if !poly1305.Verify(&tag, text, k.oneTime(nonce)) {
		return nil, ErrUnauthenticated
	}
	cipher.NewCTR(k.encrypt, nonce).XORKeyStream(text, text)
	return text, nil
}

// keyJSON is how a key file keeps the repository's key.
type keyJSON struct {
	MAC struct {
		K []byte `json:"k"`
		R []byte `json:"r"`
	} `json:"mac"`
	Encrypt []byte `json:"encrypt"`
}

// MarshalJSON returns the secret key as restic's key files keep it.
func (k *Key) MarshalJSON() ([]byte, error) {
	var j keyJSON
	j.Encrypt = k.raw[:encryptSize]
	j.MAC.K = k.raw[encryptSize : encryptSize+macKSize]
	j.MAC.R = k.raw[encryptSize+macKSize:]
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (k *Key) UnmarshalJSON(data []byte) error {
	var j keyJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	if len(j.Encrypt) != encryptSize || len(j.MAC.K) != macKSize || len(j.MAC.R) != macRSize {
		return errors.New("read key: a part has the wrong length")
	}
	var raw [keySize]byte
	copy(raw[:], j.Encrypt)
	copy(raw[encryptSize:], j.MAC.K)
	copy(raw[encryptSize+macKSize:], j.MAC.R)
	key, err := keyFrom(raw)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	*k = *key
	return nil
}
