package crypto

import (
	"crypto/rand"
	"fmt"
	"math/bits"
	"time"

	"golang.org/x/crypto/scrypt"
)

// SaltSize is the bytes of a new salt.
const SaltSize = 64

// Params are the costs of scrypt.
type Params struct {
	N int // memory and time; a power of two
	R int // block size
	P int // time
}

const (
	// maxMemory is the most memory that a key file may ask for. Restic asks
	// for 60 MB or less. The file comes from a server that is not trusted.
	maxMemory = 512 << 20
	// maxWork bounds N·r·p, and so the time: about half a minute.
	maxWork = 1 << 26
	// minN is below what restic writes, and not so low that it means nothing.
	minN = 1 << 10

	maxSaltSize = 1 << 10
)

// validate refuses what would cost too much, or nothing.
func (p Params) validate() error {
	switch {
	case p.N < minN || p.N > maxWork || bits.OnesCount(uint(p.N)) != 1:
		return fmt.Errorf("scrypt N=%d is not a power of two from %d to %d", p.N, minN, maxWork)
	case p.R < 1 || p.R > maxWork/p.N || p.P < 1 || p.P > maxWork/p.N/p.R:
		return fmt.Errorf("scrypt N=%d, r=%d, p=%d would take too long", p.N, p.R, p.P)
	case p.memory() > maxMemory:
		return fmt.Errorf("scrypt N=%d, r=%d would take %d bytes of memory", p.N, p.R, p.memory())
	}
	return nil
}

// memory returns the bytes that scrypt needs. N·r is below maxWork.
func (p Params) memory() int { return 128 * p.N * p.R }

// Derive turns a password into a key.
func Derive(p Params, salt, password []byte) (*Key, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	if len(salt) == 0 || len(salt) > maxSaltSize {
		return nil, fmt.Errorf("a salt of %d bytes is not from 1 to %d", len(salt), maxSaltSize)
	}
	derived, err := scrypt.Key(password, salt, p.N, p.R, p.P, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return keyFrom([keySize]byte(derived))
}

// NewSalt returns a random salt.
func NewSalt() []byte {
	salt := make([]byte, SaltSize)
	_, _ = rand.Read(salt) // never fails: see its documentation
	return salt
}

// The costs of a new key. Restic aims at half a second and 60 MB.
const (
	calibrateTime = 500 * time.Millisecond
	calibrateN    = 1 << 15 // 32 MiB of memory with r=8; the next step is over 60 MB
	calibrateR    = 8
	maxCalibrateP = 16 // what a fast machine makes must open on a slow one
)

// Calibrate returns costs that take about half a second on this machine, never
// less than N=32768, r=8, p=1.
func Calibrate() (Params, error) {
	p := Params{N: calibrateN, R: calibrateR, P: 1}
	start := time.Now()
	if _, err := Derive(p, make([]byte, SaltSize), []byte("calibrate")); err != nil {
		return Params{}, err
	}
	p.P = int(min(maxCalibrateP, max(1, calibrateTime/max(1, time.Since(start)))))
	return p, nil
}
