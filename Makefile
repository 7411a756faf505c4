# drydock. Two targets are for everybody: demo and test. Each installs what it
# needs from Debian (scripts/install-deps says what, and why), as root or with
# sudo.

GO     ?= go
DEMO   ?= /tmp/drydock-demo
FUZZ   ?= 60s
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The tests mount disk images that they have made, to have the kernel's word for
# what is on them, and run a real systemd: both need root.
SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo --preserve-env=HOME,GOFLAGS,GOPROXY,GOMODCACHE,GOCACHE,CI env PATH="$$PATH")

export CGO_ENABLED = 0

.PHONY: all build demo test check bench bench-disk bench-backup fuzz clean

all: build

build: ## build/drydock, one static binary
	$(GO) build -trimpath -o build/drydock ./cmd/drydock

demo: build ## three nights of two throwaway VMs, in $(DEMO)
	scripts/install-deps demo
	build/drydock demo $(DEMO)

test: ## unit tests, tests that boot real guests, and each fuzz target for a moment
	scripts/install-deps test
	$(SUDO) $(GO) test -timeout 80m ./...
	$(SUDO) scripts/fuzz 500x

check: ## formatting, vet, staticcheck, and which room may import which
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) test -count=1 -run . ./internal/layering
	$(GO) run $(STATICCHECK) ./...

bench: ## what can be measured so far; medians of alternating runs
	scripts/install-deps test
	$(SUDO) $(GO) test -run '^$$' -bench . -benchtime 3x ./disk/... ./internal/sandbox/... ./internal/repository/... ./internal/backup/...

bench-disk: ## reading disks, against the kernel, debugfs, guestmount, qemu-nbd and qemu-img
	scripts/install-deps bench
	$(SUDO) env DRYDOCK_BENCH=1 $(GO) test -v -p 1 -timeout 80m -run '^TestCompare(Streams|Copy|Read|Worker|Tar|TarGuestmount|Million)$$' ./disk/qcow2 ./internal/nbd ./internal/fusefs ./internal/sandbox ./cmd/drydock

bench-backup: ## backups, against restic and borg, and their memory
	scripts/install-deps bench
	$(SUDO) env DRYDOCK_BENCH=1 $(GO) test -v -p 1 -timeout 120m -run '^TestCompare(Loop|Guestmount|Memory|Image|Scattered|Boot|MillionFiles|HugeImage|HugeList|Parity|RestoreImage|MillionRound|MillionOff|Skeleton|Compression|Uploads)$$' ./internal/backup ./internal/repository ./cmd/drydock

fuzz: ## every fuzz target for $(FUZZ)
	scripts/fuzz $(FUZZ)

clean:
	rm -rf build
