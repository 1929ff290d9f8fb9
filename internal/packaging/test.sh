#!/bin/bash
# Tries the packages as root: that two builds have the same bytes, lintian, and in a fresh
# Debian tree, with a stand-in for systemd, the README's ways to install, an upgrade under
# a client that writes, a downgrade, removing, purging, and kills in the middle of an upgrade.
#
# KILLS: how often an upgrade is killed. REBUILD=no: without the second build.
set -euo pipefail
cd "$(dirname "$0")/../.."
KILLS=${KILLS:-12}
export LC_ALL=C no_proxy='*'

missing=()
for tool in mmdebstrap dh lintian dpkg-buildpackage unshare nsenter ip curl; do
	command -v $tool >/dev/null || missing+=("$tool")
done
if ((${#missing[@]} || EUID != 0)); then
	echo "The packages are NOT TRIED. That needs root and: mmdebstrap debhelper dpkg-dev lintian util-linux iproute2 curl. Missing: ${missing[*]:-root}" >&2
	exit 1
fi

work=$(mktemp -d)
holder='' # the process that keeps the machine up
finish() {
	code=$?
	if ((code)) && [ -n "$root" ]; then
		tail -n 20 "$root/var/log/clouddragon.log" "$work/log" 2>/dev/null || true
	fi
	down
	jobs -p | xargs -r kill 2>/dev/null || true
	rm -rf --one-file-system "$work"
	exit $code
}
trap finish EXIT
step() { printf -- '-- %s (%ds)\n' "$*" $SECONDS; }
fail() { echo "FAIL: $*" >&2; exit 1; }
want() { [ "$2" = "$3" ] || fail "$1: got '$2', want '$3'"; }

# --- machines: a tree with its own processes, mounts and network ---

root=''

fresh() { # NAME: a new tree
	root=$work/$1
	mkdir "$root"
	tar -x -f "$work/base.tar" -C "$root"
	install -m 755 internal/packaging/systemctl.sh "$root/usr/bin/systemctl"
}

up() { # boot: start what is enabled
	# shellcheck disable=SC2016
	unshare --mount --pid --net --fork --kill-child sh -ec '
		mount -t proc proc "$1/proc"
		mount -t tmpfs tmpfs "$1/run"
		mkdir -p "$1/run/systemd/system"
		touch "$1/run/up"
		exec chroot "$1" sh -c "while :; do sleep 0.1; done"' sh "$root" 2>"$work/unshare" &
	holder=$!
	until init=$(cat "/proc/$holder/task/$holder/children" 2>/dev/null) && [ -n "$init" ] && [ -e "/proc/${init% }/root/run/up" ]; do
		kill -0 $holder 2>/dev/null || { cat "$work/unshare" >&2; fail "no namespaces here"; }
		sleep 0.02
	done
	init=${init% }
	nsenter --target "$init" --net ip link set lo up
	if [ -L "$root/etc/systemd/system/multi-user.target.wants/clouddragon.service" ]; then
		run systemctl start clouddragon.service || fail "the server does not start"
	fi
}

down() { # kill -9 of all that runs
	[ -n "$holder" ] || return 0
	kill -9 "$init" 2>/dev/null || true
	wait "$holder" 2>/dev/null || true
	holder=''
}

run() { # COMMAND... in the machine
	nsenter --target "$init" --mount --pid --net chroot "$root" env -i \
		PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		HOME=/root LC_ALL=C no_proxy='*' DEBIAN_FRONTEND=noninteractive GOCACHE=/go/cache GOMODCACHE=/go/mod GOPROXY=off "$@"
}

call() { nsenter --target "$init" --net curl -sS --max-time 20 "$@"; }

readonly server=http://127.0.0.1:8081
version() { call $server/metrics | sed -n 's/^clouddragon_build_info{.*version="\([^"]*\)".*/\1/p' | tr - +; } # as a package has it

# --- the packages ---

copy() { # DIR: this repository, with other times of the files
	mkdir -p "$1"
	tar -c --exclude=./bin --exclude=./data . | tar -x -m --no-same-owner -C "$1"
}

step "make deb"
copy "$work/one"
make -s -C "$work/one" deb >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "make deb"; }
built=$work/one/bin/dist
cat "$built/SHA256SUMS"
arch=$(dpkg --print-architecture)
new=$(basename "$built"/clouddragon_*_"$arch".deb _"$arch".deb)
new=${new#clouddragon_}

if [ "${REBUILD:-yes}" = yes ]; then
	step "make deb in another directory, with nothing built before"
	copy "$work/another/directory"
	GOCACHE=$work/cache make -s -C "$work/another/directory" deb ARCHES="$arch" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "make deb"; }
	grep "$arch\." "$built/SHA256SUMS" | diff - "$work/another/directory/bin/dist/SHA256SUMS" || fail "the same sources make other bytes"
	rm -rf "$work/cache" "$work/another"
fi

step lintian
lintian --allow-root --fail-on error --fail-on warning "$built"/*.deb

step "an older package and a newer one"
for v in 0.0.1 99.0.0; do
	(
		cd "$work/one"
		[ $v != 99.0.0 ] || echo '# A line that this version does not have.' >>config.yml
		export VERSION=$v SOURCE_DATE_EPOCH=0 OUT=$work/others
		internal/packaging/dist.sh "$arch" && internal/packaging/deb.sh "$arch"
	) >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "package $v"; }
done

step "a Debian tree"
sources=
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
	[ -s "$sources" ] || sources=$file
done
# shellcheck disable=SC1091
mmdebstrap --quiet --variant=apt --mode=root --include=systemd-standalone-sysusers,curl,make \
	--dpkgopt='path-exclude=/usr/share/locale/*' "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$work/base.tar" "$sources"

# --- the README ---

block() { # N: the Nth block of shell lines under Install
	sed -n '/^## Install$/,/^## [^I]/p' README.md | awk -v n="$1" '/^```bash$/ { i++; on = 1; next } /^```$/ { on = 0 } on && i == n'
}
for n in 1 2 3; do
	lines=$(block $n)
	[ -n "$lines" ] || fail "the README has no block $n under Install"
	step "README: $(head -n 1 <<<"$lines")"
	fresh "readme$n"
	up
	mkdir "$root/root/here"
	case $lines in
	*make\ install*)
		tar -c --exclude=./bin --exclude=./data --exclude=./.git . | tar -x --no-same-owner -C "$root/root/here"
		mkdir -p "$root/go/cache" "$root/go/mod" "$root/usr/local/go"
		for dir in GOROOT:/usr/local/go GOCACHE:/go/cache GOMODCACHE:/go/mod; do
			nsenter --target "$init" --mount mount --bind "$(go env "${dir%%:*}")" "$root${dir#*:}"
		done
		;;
	*) cp "$built"/* "$root/root/here" ;;
	esac
	run bash -euo pipefail -c "cd /root/here; $lines" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "the README's block $n"; }
	want healthz ok "$(tail -n 1 "$work/log")"
	want "the running version" "$(version)" "$new"
	want "who may read the configuration" "$(run stat -c '%U:%G %a' /etc/clouddragon/config.yml)" 'root:clouddragon 640'
	down
	rm -rf --one-file-system "$root"
done

# --- installing ---

package() { # VERSION: its file in the machine
	echo "/root/clouddragon_${1}_$arch.deb"
}
fresh machine
cp "$built"/*"$arch".deb "$work"/others/*.deb "$root/root"
up

step "install $new"
run dpkg -i "$(package "$new")" >"$work/log" 2>&1 || fail "install"
want "the running version" "$(version)" "$new"
want "who may read the configuration" "$(run stat -c '%U:%G %a' /etc/clouddragon/config.yml)" 'root:clouddragon 640'
want "who may read the data" "$(run stat -c '%U:%G %a' /var/lib/clouddragon)" 'clouddragon:clouddragon 750'
want "the service" "$(run systemctl is-enabled clouddragon.service)" enabled
want "the timer" "$(run systemctl is-enabled clouddragon-backup.timer || true)" disabled
want "a conffile" "$(run dpkg-query -W -f '${Conffiles}' clouddragon | awk '{ print $1 }')" /etc/clouddragon/config.yml
[ -z "$(find "$root/usr/local" -name 'clouddragon*')" ] || fail "the package has files in /usr/local"
! grep -rn /usr/local "$root"/lib/systemd/system/clouddragon* || fail "a unit of the package names /usr/local"
echo '# mine' >>"$root/etc/clouddragon/config.yml"

# --- upgrading ---

# Writes as fast as it can, and notes each answered number and every other answer.
cat >"$work/client" <<'END'
#!/bin/bash
while :; do
	n=$(curl -s --max-time 20 -w '\n%{http_code}' -X POST $1/db/1/sequence/a 2>/dev/null) && code=0 || code=$?
	status=${n##*$'\n'} n=${n%%$'\n'*}
	if ((code == 0)) && [ "$status" = 200 ]; then
		echo "$n" >>"$2/answered"
	else
		echo "curl $code, status $status" >>"$2/refused"
		sleep 0.02
	fi
done
END
under_load() { # COMMAND...: while a client writes; nothing that was answered is lost
	rm -f "$work/answered" "$work/refused"
	touch "$work/refused"
	nsenter --target "$init" --net bash "$work/client" $server "$work" &
	local client=$! before
	until [ -s "$work/answered" ]; do sleep 0.02; done
	"$@"
	before=$(wc -l <"$work/answered")
	until (($(wc -l <"$work/answered") > before + 10)); do sleep 0.02; done
	kill $client
	wait $client 2>/dev/null || true
	sort -n -u -c "$work/answered" || fail "a number was given twice"
	# 7: refused; 52 and 56: accepted by the kernel and closed with the listener.
	! grep -vE '^curl 0, status 503$|^curl (7|52|56), status 000$' "$work/refused" || fail "a client saw that"
	echo "   answered $(wc -l <"$work/answered"); $(sort "$work/refused" | uniq -c | sed 's/^ *//' | paste -sd';')"
	(($(call $server/db/1/sequence/a) >= $(tail -n 1 "$work/answered"))) || fail "an answered write is lost"
}
# The administrator's config.yml stays although the package has another one.
dpkg_i() { run dpkg --force-confold -i "$(package "$1")" >"$work/log" 2>&1 || fail "dpkg -i $1"; }

call -d kept $server/db/1/kv/k >/dev/null
for v in 99.0.0 "$new" 0.0.1 "$new"; do
	step "from $(version) to $v, under a client that writes"
	under_load dpkg_i "$v"
	want "the running version" "$(version)" "$v"
	want "a value" "$(call $server/db/1/kv/k)" kept
	want "the administrator's configuration" "$(tail -n 1 "$root/etc/clouddragon/config.yml")" '# mine'
done

step "a version that cannot read the data is refused"
refused() { # FILE, below data: with a newer format. The server runs on, or again.
	local file=$root/var/lib/clouddragon/data/$1
	run systemctl stop clouddragon
	cp -a "$file" "$work/kept"
	printf '\143' | dd of="$file" bs=1 seek=8 conv=notrunc status=none
	! run dpkg -i "$(package 0.0.1)" >"$work/log" 2>&1 || fail "a directory with a newer $1 is not refused"
	grep -q "data/$1 has format 99, and this version reads format" "$work/log" || { cat "$work/log" >&2; fail "it does not say why"; }
	cp -a "$work/kept" "$file"
	want "the package" "$(run dpkg-query -W -f '${Version} ${Status}' clouddragon)" "$new install ok installed"
	run systemctl start clouddragon
	want "the running version" "$(version)" "$new"
	want "a value" "$(call $server/db/1/kv/k)" kept
}
refused CHECKPOINT
refused slots-64
refused "log/$(run ls /var/lib/clouddragon/data/log | grep seg | tail -n 1)"

sed -i 's|^data: .*|data: "/srv/their data"  # elsewhere|' "$root/etc/clouddragon/config.yml"
run systemctl stop clouddragon
run mv /var/lib/clouddragon/data "/srv/their data"
printf '\143' | dd of="$root/srv/their data/CHECKPOINT" bs=1 seek=8 conv=notrunc status=none
! run dpkg -i "$(package 0.0.1)" >"$work/log" 2>&1 || fail "a directory elsewhere is not looked at"
grep -q 'data/CHECKPOINT has format 99' "$work/log" || { cat "$work/log" >&2; fail "it does not say why"; }
printf '\2' | dd of="$root/srv/their data/CHECKPOINT" bs=1 seek=8 conv=notrunc status=none
run mv "/srv/their data" /var/lib/clouddragon/data
sed -i 's|^data: .*|data: data|' "$root/etc/clouddragon/config.yml"
run systemctl start clouddragon
want "a value" "$(call $server/db/1/kv/k)" kept

step "what the administrator says about permissions counts"
run dpkg-statoverride --update --add root root 0600 /etc/clouddragon/config.yml
dpkg_i "$new"
want "who may read the configuration" "$(run stat -c '%U:%G %a' /etc/clouddragon/config.yml)" 'root:root 600'
run dpkg-statoverride --remove /etc/clouddragon/config.yml
dpkg_i "$new"
want "who may read the configuration" "$(run stat -c '%U:%G %a' /etc/clouddragon/config.yml)" 'root:clouddragon 640'

# --- kills ---

start=$(date +%s%N)
dpkg_i 99.0.0
took=$((($(date +%s%N) - start) / 1000000))
step "$KILLS kills -9 of everything within the $took ms of an upgrade"
declare -A found=()
for ((i = 0; i < KILLS; i++)); do
	v=$new
	((i % 2)) && v=99.0.0
	n=$(call -X POST $server/db/1/sequence/a)
	run dpkg --force-confold -i "$(package "$v")" >/dev/null 2>&1 &
	sleep "$(awk -v n=$i -v of="$KILLS" -v took="$took" -v r=$RANDOM 'BEGIN { print (n + r / 32768) * took / of / 1000 }')"
	down
	wait
	up # as after a power cut: before anybody has looked at it
	n=$((n + 1))
	want "the next number" "$(call -X POST $server/db/1/sequence/a)" $n
	found["$(run dpkg-query -W -f '${db:Status-Status}' clouddragon)"]=1
	# What dpkg was unpacking it wants installed anew; the rest it finishes.
	run dpkg --force-confold --configure -a >"$work/log" 2>&1 || grep -q 'should$' "$work/log" || fail "dpkg --configure -a"
	want "a value" "$(call $server/db/1/kv/k)" kept
	dpkg_i "$v"
	want "the running version" "$(version)" "$v"
done
echo "   states in which it was found: ${!found[*]}"
dpkg_i "$new"
want "dpkg --audit" "$(run dpkg --audit)" ''

# --- removing ---

step remove
run dpkg --remove clouddragon >"$work/log" 2>&1 || fail "remove"
! run systemctl is-active clouddragon || fail "the server still runs"
[ ! -e "$root/usr/bin/clouddragon" ] || fail "the program is still there"
want "the administrator's configuration" "$(tail -n 1 "$root/etc/clouddragon/config.yml")" '# mine'
dpkg_i "$new"
want "a value" "$(call $server/db/1/kv/k)" kept

step purge
run dpkg --purge clouddragon >"$work/log" 2>&1 || fail "purge"
grep -q 'the data in /var/lib/clouddragon stays' "$work/log" || fail "a purge does not say where the data is"
[ ! -e "$root/etc/clouddragon" ] || fail "the configuration is still there"
[ -z "$(find "$root/etc" "$root/usr" "$root/lib/systemd" -name 'clouddragon*')" ] || fail "a purge leaves files"
dpkg_i "$new"
want "a value" "$(call $server/db/1/kv/k)" kept
run systemctl stop clouddragon
run rm -r /var/lib/clouddragon/data
run dpkg --purge clouddragon >"$work/log" 2>&1 || fail "purge"
[ ! -e "$root/var/lib/clouddragon" ] || fail "a purge leaves an empty data directory"
step "all of it holds"
