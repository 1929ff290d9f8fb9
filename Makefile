# Bare make prints what there is to run.

VERSION  := $(patsubst v%,%,$(shell git describe --tags --dirty 2>/dev/null || sed -n 's/^\#\# \[\([0-9][^]]*\)\].*/\1/p' CHANGELOG.md | head -n 1))
# The time of the commit, which release files carry.
EPOCH    := $(shell git log -1 --format=%ct 2>/dev/null || date -u -d "$$(sed -n 's/^\#\# \[[0-9].*\] - //p' CHANGELOG.md | head -n 1)" +%s)
PREFIX   := /usr/local
FUZZTIME := 20s
# For make fuzz: how many messages to send to a server with event loops and to one without, whose answers have to be the same.
MESSAGES := 100000
# For make crash: states of a simulated disk, as many more with a backup under way, kills, power cuts, and operations checked for linearizability.
STATES   := 200000
ROUNDS   := 200
CUTS     := 600
OPS      := 100000
# Of all flipped bits, file lengths and failed calls of the disk, one in DAMAGE is tried; 1: every one.
DAMAGE   := 50
PLANT    := .
SOAK     := 10m
KEYS     := 10000000
ARCHES   := amd64 arm64
PACK      = VERSION='$(VERSION)' SOURCE_DATE_EPOCH=$(EPOCH)

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

run: build ## build, and run the server with ./config.yml
	bin/clouddragon -config config.yml

build: ## bin/clouddragon
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/clouddragon ./cmd/clouddragon

test: ## go vet and every test
	go vet ./...
	go test ./...

race: ## every test with the race detector (needs a C compiler)
	go test -race ./...

fuzz: ## each fuzz target for FUZZTIME (20s), and MESSAGES (100000) with event loops and without
	@set -e; for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "$$p $$f"; \
			go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
		done; \
	done
	go test -count=1 -timeout 24h -v -run LoopsAnswerAsNetHTTP ./handlers -args -messages $(MESSAGES)

crash: ## long: power cuts, kills and failing disks, simulated and (as root) on a loop device
	go test -count=10 -run 'Crash|Cut|Torn|Fail|Full|Damage|Survive|Heal' $$(go list ./... | grep -v crashtest)
	go test -count=1 -timeout 24h -v -run 'DamageIsRefused|EveryDiskCall' ./db -args -damage $(DAMAGE)
	go test -count=1 -timeout 24h -v -run PowerCutKeeps ./db -args -states $(STATES)
	go test -count=1 -timeout 24h -v ./internal/test/crashtest -args -rounds $(ROUNDS) -cuts $(CUTS) -ops $(OPS)
	go test -count=1 -timeout 24h -v ./internal/test/crashtest -args -front=false

failover: ## ROUNDS (200) manual failovers under load, and ROUNDS faults of a cluster with etcd (root), checking what clients were told
	go test -count=1 -timeout 24h -v -run 'StandbyTakesOver|ClusterInANetwork' ./internal/test/crashtest -args -rounds $(ROUNDS)

planted: ## check that the tests catch bugs: plant one at a time; PLANT is a regexp of their names
	go test -count=1 -timeout 24h -v -run Planted ./internal/test/planted -args -plant '$(PLANT)'

soak: ## write, delete, expire and compact values for SOAK (10m), with restarts, checking every one
	go test -count=1 -timeout 24h -v -run TestSoak ./db -args -soak $(SOAK)

keys: ## measure the memory and the start with KEYS (10000000) values
	go test -timeout 1h -run '^$$' -bench ManyKeys -benchtime 1x ./db -args -keys $(KEYS)

bench: build ## compare the speed with an empty handler, Redis and etcd; BENCH='-before OLD' compares two binaries, '-only ^keys -keys N' tries many keys
	@for t in redis-server etcd; do \
		command -v $$t >/dev/null && continue; \
		apt-get update && apt-get install -y --no-install-recommends redis-server etcd-server && break; \
		exit 1; \
	done
	go build -o bin/bench ./bench
	bin/bench $(BENCH) >bin/bench.md
	@cat bin/bench.md

profile: ## where the server's CPU time goes under 256 connections (needs wrk): bin/cpu.pprof
	go test -run '^$$' -bench 'Post/256' -benchtime 10s -o bin/bench.test -cpuprofile bin/cpu.pprof ./bench
	go tool pprof -top -nodecount 30 bin/bench.test bin/cpu.pprof

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "gofmt:"; gofmt -l .; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

install: ## to /usr/local (PREFIX, DESTDIR), with a systemd unit and its user; an existing config stays
	$(PACK) internal/packaging/stage.sh "$$(go env GOHOSTARCH)" bin/stage/install
	PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' bin/stage/install/install.sh

dist: ## bin/dist: tarballs for ARCHES (amd64 arm64), and SHA256SUMS
	rm -rf bin/dist bin/stage
	$(PACK) internal/packaging/dist.sh $(ARCHES)

deb: dist ## bin/dist: Debian packages too (needs debhelper)
	$(PACK) internal/packaging/deb.sh $(ARCHES)

packagetest: ## as root: install, upgrade, kill, downgrade and remove the packages in a fresh Debian tree
	internal/packaging/test.sh

systemdtest: ## as root: the package under a real systemd, in a fresh Debian tree (needs systemd-container)
	internal/packaging/systemd.sh

.PHONY: help run build test race fuzz crash failover planted soak keys bench profile lint install dist deb packagetest systemdtest
