package crypto_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

func newKey(t testing.TB) *crypto.Key {
	t.Helper()
	k, err := crypto.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealOpen(t *testing.T) {
	k := newKey(t)
	for _, size := range []int{0, 1, 15, 16, 17, 1 << 20} {
		plain := bytes.Repeat([]byte{'a'}, size)
		sealed := k.Seal([]byte("before"), plain)
		if len(sealed) != len("before")+size+crypto.Overhead {
			t.Fatalf("%d bytes became %d", size, len(sealed))
		}
		got, err := k.Open(sealed[len("before"):])
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// Every bit counts, and so does every byte that is missing.
func TestOpenRefuses(t *testing.T) {
	k := newKey(t)
	sealed := k.Seal(nil, []byte("content"))
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		before := bytes.Clone(bad)
		if _, err := k.Open(bad); !errors.Is(err, crypto.ErrUnauthenticated) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if !bytes.Equal(bad, before) {
			t.Errorf("byte %d changed: the input was decrypted nevertheless", i)
		}
		if _, err := k.Open(bytes.Clone(sealed[:i])); !errors.Is(err, crypto.ErrUnauthenticated) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := newKey(t).Open(sealed); !errors.Is(err, crypto.ErrUnauthenticated) {
		t.Errorf("another key: %v", err)
	}
}

// The vectors of the Poly1305-AES paper (D. J. Bernstein, appendix B). Sealing
// is random, so they come in through Open: with AES in counter mode under a key
// of ours the ciphertext can be anything.
func TestPoly1305AES(t *testing.T) {
	for _, v := range []struct{ m, r, k, n, tag string }{
		{"f3f6", "851fc40c3467ac0be05cc20404f3f700", "ec074c835580741701425b623235add6", "fb447350c4e868c52ac3275cf9d4327e", "f4c633c3044fc145f84f335cb81953de"},
		{"", "a0f3080000f46400d0c7e9076c834403", "75deaa25c09f208e1dc4ce6b5cad3fbf", "61ee09218d29b0aaed7e154a2c5509cc", "dd3fab2251f11ac759f0887129cc2ee7"},
		{"663cea190ffb83d89593f3f476b6bc24d7e679107ea26adb8caf6652d0656136", "48443d0bb0d21109c89a100b5ce2c208", "6acb5f61a7176dd320c5c1eb2edcdc74", "ae212a55399729595dea458bc621ff0e", "0ee1c16bb73f0f4fd19881753c01cdbe"},
	} {
		key := keyOf(t, v.k, v.r)
		sealed := append(append(unhex(t, v.n), unhex(t, v.m)...), unhex(t, v.tag)...)
		if _, err := key.Open(sealed); err != nil {
			t.Errorf("message %q: %v", v.m, err)
		}
	}
}

func keyOf(t *testing.T, k, r string) *crypto.Key {
	t.Helper()
	var key crypto.Key
	err := json.Unmarshal(marshal(t, map[string]any{
		"encrypt": bytes.Repeat([]byte{1}, 32),
		"mac":     map[string][]byte{"k": unhex(t, k), "r": unhex(t, r)},
	}), &key)
	if err != nil {
		t.Fatal(err)
	}
	return &key
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeyJSON(t *testing.T) {
	k := newKey(t)
	var again crypto.Key
	if err := json.Unmarshal(marshal(t, k), &again); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Open(k.Seal(nil, []byte("x"))); err != nil {
		t.Errorf("the key changed on its way: %v", err)
	}
	zero := make([]byte, 32)
	for name, bad := range map[string]any{
		"short":    map[string]any{"encrypt": []byte{1}, "mac": map[string][]byte{"k": {1}, "r": {1}}},
		"zero":     map[string]any{"encrypt": zero, "mac": map[string][]byte{"k": zero[:16], "r": zero[:16]}},
		"nothing":  map[string]any{},
		"no match": 7,
	} {
		if err := json.Unmarshal(marshal(t, bad), &crypto.Key{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDerive(t *testing.T) {
	p := crypto.Params{N: 1 << 10, R: 1, P: 1}
	salt := crypto.NewSalt()
	a, err := crypto.Derive(p, salt, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := crypto.Derive(p, salt, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(a.Seal(nil, nil)); err != nil {
		t.Errorf("the same password gave another key: %v", err)
	}
	for _, bad := range []crypto.Params{
		{}, {N: 1000, R: 8, P: 1}, {N: 512, R: 8, P: 1}, {N: 1 << 30, R: 1, P: 1}, {N: 1 << 15, R: 8, P: 1 << 20},
		{N: 1 << 15, R: 1 << 40, P: 1}, {N: 1 << 20, R: 32, P: 1}, {N: 1 << 15, R: -8, P: -1}, {N: -1 << 63, R: 8, P: 1},
	} {
		if _, err := crypto.Derive(bad, salt, nil); err == nil {
			t.Errorf("%+v: accepted", bad)
		}
	}
	if _, err := crypto.Derive(p, nil, nil); err == nil {
		t.Error("no salt: accepted")
	}
}

func TestCalibrate(t *testing.T) {
	p, err := crypto.Calibrate()
	if err != nil {
		t.Fatal(err)
	}
	if p.N != 1<<15 || p.R != 8 || p.P < 1 || p.P > 16 {
		t.Errorf("calibrated to %+v", p)
	}
}
