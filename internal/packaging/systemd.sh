#!/bin/bash
# Tries the package as root under a real systemd, booted by systemd-nspawn in a fresh Debian
# tree: the units, reload, the watchdog, credentials, a socket unit, backups, upgrades during
# writes, kills, reboots, removing and purging.
#
# The tree has its own /tmp, /run, /dev, network and cgroup. The script checks that this
# is so before it boots.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C no_proxy='*'

missing=()
for tool in mmdebstrap dh dpkg-buildpackage systemd-nspawn nsenter go; do
	command -v $tool >/dev/null || missing+=("$tool")
done
if ((${#missing[@]} || EUID != 0)); then
	echo "The units are NOT TRIED under systemd. That needs root and: mmdebstrap debhelper dpkg-dev systemd-container util-linux. Missing: ${missing[*]:-root}" >&2
	exit 1
fi

work=$(mktemp -d)
name=clouddragon-$$
root=$work/tree
nspawn='' # the process that keeps the machine up
finish() {
	code=$?
	if ((code)) && [ -n "$nspawn" ]; then
		run journalctl --no-pager -n 40 >&2 || true
	fi
	crash
	for group in "${groups[@]}"; do
		find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
	done
	rmdir "/run/systemd/nspawn/propagate/$name" 2>/dev/null || true
	rm -f "/run/$name"
	rm -rf --one-file-system "$work"
	exit $code
}
groups=()
trap finish EXIT
step() { printf -- '-- %s (%ds)\n' "$*" $SECONDS; }
fail() { echo "FAIL: $*" >&2; exit 1; }
want() { [ "$2" = "$3" ] || fail "$1: got '$2', want '$3'"; }
until_true() { # COMMAND...: within a minute
	local end=$((SECONDS + 60))
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || fail "within a minute not true: $*"
		sleep 0.1
	done
}

# --- the machine ---

# Its own cgroup: the systemd in it owns everything below it.
for group in /sys/fs/cgroup /sys/fs/cgroup/*/; do
	group=${group%/}/$name
	[ -w "${group%/*}/cgroup.procs" ] || continue
	mkdir "$group"
	groups+=("$group")
done

# spawn ARGUMENT...: systemd-nspawn on the tree, in place of this process.
spawn() {
	for group in "${groups[@]}"; do
		echo $BASHPID >"$group/cgroup.procs" 2>/dev/null || true # a cpuset without processors
	done
	exec systemd-nspawn --quiet --register=no --keep-unit --directory="$root" --machine="$name" --private-network --console=pipe "$@" </dev/null
}

up() {
	spawn --boot >"$work/console" 2>&1 &
	nspawn=$!
	init=''
	until_true booted
	run systemctl is-system-running --wait >/dev/null || fail "the machine does not come up: $(run systemctl --failed --no-legend)"
}
booted() {
	kill -0 $nspawn || { cat "$work/console" >&2; fail "nothing boots here"; }
	init=$(cat "/proc/$nspawn/task/$nspawn/children")
	init=${init% }
	[ -n "$init" ] && run systemctl is-system-running --wait | grep -E 'running|degraded'
}
crash() { # kill -9 of all that runs
	[ -n "$nspawn" ] || return 0
	kill -9 "${init:-$nspawn}" 2>/dev/null || true
	wait $nspawn 2>/dev/null || true
	nspawn=''
}
reboot() {
	run systemctl poweroff
	wait $nspawn || true
	nspawn=''
	up
}
run() { # COMMAND... in the machine
	nsenter --target "$init" --mount --pid --net --uts --ipc --cgroup --root --wd env -i \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"
}
readonly server=http://127.0.0.1:8081
call() { run curl -sS --max-time 20 "$@"; }
property() { run systemctl show --property="$1" --value clouddragon.service; }
log() { run journalctl --no-pager -o cat -u clouddragon.service; }
drop_in() { # LINE...: of [Service]; none: without
	local file=$root/etc/systemd/system/clouddragon.service.d/test.conf
	mkdir -p "${file%/*}"
	printf '%s\n' '[Service]' "$@" >"$file"
	run systemctl daemon-reload
}
next=1
number() { # the next number of a sequence that loses none
	want "the next number" "$(call -X POST $server/db/1/sequence/n)" $next
	next=$((next + 1))
}

# --- the packages ---

step "make deb"
arch=$(dpkg --print-architecture)
mkdir "$work/source" "$work/debs"
tar -c --exclude=./bin --exclude=./data . | tar -x --no-same-owner -C "$work/source"
for v in 0.0.1 99.0.0; do
	(
		cd "$work/source"
		rm -rf bin
		export VERSION=$v SOURCE_DATE_EPOCH=0 OUT=$work/debs
		internal/packaging/dist.sh "$arch" && internal/packaging/deb.sh "$arch"
	) >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "package $v"; }
done
package() { echo "/root/clouddragon_${1}_$arch.deb"; }
dpkg_i() { run dpkg -i "$(package "$1")" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "dpkg -i $1"; }; }

step "a Debian tree with systemd"
sources=
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
	[ -s "$sources" ] || sources=$file
done
# shellcheck disable=SC1091
mmdebstrap --quiet --variant=minbase --mode=root --include=systemd-sysv,dbus,curl \
	--dpkgopt='path-exclude=/usr/share/locale/*' "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$work/base.tar" "$sources"
mkdir "$root"
tar -x -f "$work/base.tar" -C "$root"
rm "$work/base.tar"
cp "$work"/debs/*.deb "$root/root"

step "it is a machine of its own"
touch "/run/$name" "${TMPDIR:-/tmp}/$name"
# shellcheck disable=SC2016
(spawn /bin/sh -c '[ $$ = 1 ] && [ ! -e /run/$1 ] && [ ! -e $2 ] && [ -z "$(ls /tmp)" ] && [ ! -e /sys/class/net/eth0 ]' \
	sh "$name" "${TMPDIR:-/tmp}/$name") || fail "the tree shares something with this machine: not booted"
rm "${TMPDIR:-/tmp}/$name"
up
run systemctl --version | head -n 1

# --- the service ---

step install
dpkg_i 0.0.1
want "the service" "$(run systemctl is-active clouddragon.service)" active
want "the service" "$(run systemctl is-enabled clouddragon.service)" enabled
want "the timer" "$(run systemctl is-enabled clouddragon-backup.timer || true)" disabled
want "what it says" "$(property StatusText)" "serving on 127.0.0.1:8081"
want healthz ok "$(call $server/healthz)"
want "who runs it" "$(run stat -c %U "/proc/$(property MainPID)")" clouddragon
want "what systemd-analyze verify says" "$(run systemd-analyze verify --man=no clouddragon.service clouddragon-backup.service clouddragon-backup.timer 2>&1)" ''
for unit in clouddragon clouddragon-backup; do
	run systemd-analyze security --threshold=15 "$unit.service" >"$work/log" || { cat "$work/log" >&2; fail "$unit is exposed"; }
done
want "warnings of systemd" "$(run journalctl --no-pager -o cat -p warning _PID=1 | grep -i clouddragon || true)" ''
number

step "kill -9 of the server"
run systemctl kill --signal=KILL clouddragon.service
until_true call -f $server/healthz
want "restarts" "$(property NRestarts)" 1
number

step reload
run systemctl reload clouddragon.service
[[ $(log) == *msg=reloaded* ]] || fail "the log says nothing of a reload when it is over"
number

step "a server that stands still is ended"
drop_in WatchdogSec=2
run systemctl restart clouddragon.service
run systemctl kill --signal=STOP clouddragon.service
until_true eval '[ "$(property NRestarts)" = 1 ]'
until_true call -f $server/healthz
[[ $(log) == *"Failed with result 'watchdog'"* ]] || fail "it was not the watchdog"
drop_in
number

step "a bad configuration"
config=$root/etc/clouddragon/config.yml
cp -a "$config" "$work/config.yml"
echo 'nonsense: 1' >>"$config"
! run systemctl restart clouddragon.service 2>/dev/null || fail "it starts"
want "the exit code" "$(property ExecMainStatus)" 78
want "the state" "$(run systemctl is-failed clouddragon.service)" failed
[[ $(property StatusText) == *nonsense* ]] || fail "systemctl status does not say why: $(property StatusText)"
cp -a "$work/config.yml" "$config"
run systemctl start clouddragon.service
number

step "credentials that only root may read"
token=a-long-and-random-token-of-the-test
echo "- {token: \"$token\"}" >"$root/etc/clouddragon/tokens.yml"
(cd "$work" && go run "$(go env GOROOT)/src/crypto/tls/generate_cert.go" --host 127.0.0.1 2>/dev/null)
mkdir -p "$root/etc/letsencrypt/live/example.org"
cp "$work/cert.pem" "$root/etc/letsencrypt/live/example.org/fullchain.pem"
cp "$work/key.pem" "$root/etc/letsencrypt/live/example.org/privkey.pem"
run chmod -R go= /etc/letsencrypt /etc/clouddragon/tokens.yml
# As the unit has them.
mapfile -t credentials < <(sed -n 's/^#\(LoadCredential=\)/\1/p' "$root/lib/systemd/system/clouddragon.service")
want "credentials in the unit" ${#credentials[@]} 3
drop_in "${credentials[@]}"
dir=/run/credentials/clouddragon.service
sed -i "s|^tokens_file: .*|tokens_file: $dir/tokens.yml|; s|^  cert: .*|  cert: $dir/cert.pem|; s|^  key: .*|  key: $dir/key.pem|" "$config"
run systemctl restart clouddragon.service
secure=(--cacert /etc/letsencrypt/live/example.org/fullchain.pem -o /dev/null -w '%{http_code}' https://127.0.0.1:8081/metrics)
want "without a token" "$(call "${secure[@]}")" 401
want "with the token" "$(call -u ":$token" "${secure[@]}")" 200
run systemctl reload clouddragon.service
want "after a reload" "$(call -u ":$token" "${secure[@]}")" 200
cp -a "$work/config.yml" "$config"
drop_in
echo "CLOUDDRAGON_TOKEN=$token" >"$root/etc/clouddragon/env"
run chmod 600 /etc/clouddragon/env
run systemctl restart clouddragon.service
want "with the token of /etc/clouddragon/env" "$(call -u ":$token" -o /dev/null -w '%{http_code}' $server/metrics)" 200

step "a backup, with the token of the same file"
run systemctl start clouddragon-backup.service || { run journalctl --no-pager -o cat -n 9 -u clouddragon-backup >&2; fail "no backup"; }
file=$(run find /var/lib/clouddragon-backup -name 'clouddragon-*.tar')
run clouddragon restore -data /root/restored "$file" >/dev/null
run clouddragon verify -data /root/restored >/dev/null
rm "$root/etc/clouddragon/env"
run systemctl restart clouddragon.service
run systemctl enable --quiet --now clouddragon-backup.timer
[[ $(run systemctl list-timers --no-legend) == *clouddragon-backup.timer* ]] || fail "the timer waits for nothing"
number

# --- upgrades ---

# Writes as fast as it can, and notes each answered number and every other answer.
cat >"$root/root/client" <<'END'
#!/bin/bash
while :; do
	n=$(curl -s --max-time 20 -w '\n%{http_code}' -X POST $1/db/1/sequence/a 2>/dev/null) && code=0 || code=$?
	status=${n##*$'\n'} n=${n%%$'\n'*}
	if ((code == 0)) && [ "$status" = 200 ]; then
		echo "$n" >>/root/answered
	else
		echo "curl $code, status $status" >>/root/refused
		sleep 0.02
	fi
done
END
answered=$root/root/answered refused=$root/root/refused
answers() { (($(wc -l <"$answered") > ${1:-0})); }
under_load() { # COMMAND...: while a client writes; nothing that was answered is lost
	rm -f "$answered" "$refused"
	touch "$answered" "$refused"
	run systemd-run --quiet --unit=client bash /root/client $server
	until_true answers
	"$@"
	until_true answers $(($(wc -l <"$answered") + 10))
	run systemctl stop client
	sort -n -u -c "$answered" || fail "a number was given twice"
	# 7: refused; 52 and 56: accepted by the kernel and closed with the listener.
	! grep -vE '^curl 0, status 503$|^curl (7|52|56), status 000$' "$refused" || fail "a client saw that"
	echo "   answered $(wc -l <"$answered"); $(sort "$refused" | uniq -c | sed 's/^ *//' | paste -sd';')"
	(($(call $server/db/1/sequence/a) >= $(tail -n 1 "$answered"))) || fail "an answered write is lost"
}
version() { call $server/metrics | sed -n 's/^clouddragon_build_info{.*version="\([^"]*\)".*/\1/p'; }

for v in 99.0.0 0.0.1; do
	step "from $(version) to $v, under a client that writes"
	under_load dpkg_i "$v"
	want "the running version" "$(version)" "$v"
	want "the timer stays enabled" "$(run systemctl is-active clouddragon-backup.timer)" active
	number
done

step "the socket unit of docs/operations.md, and restarts under a client that writes"
sed -n '/^# .*clouddragon\.socket$/,/^```$/p' docs/operations.md | sed '/^```/d' >"$root/etc/systemd/system/clouddragon.socket"
run systemctl daemon-reload
run systemctl stop clouddragon.service
run systemctl enable --quiet --now clouddragon.socket
number # starts the service
restarts() { for _ in 1 2 3; do run systemctl restart clouddragon.service; done; }
under_load restarts
want "refused" "$(cat "$refused")" ''
reboot
number
run systemctl disable --quiet --now clouddragon.socket
rm "$root/etc/systemd/system/clouddragon.socket"
run systemctl daemon-reload
run systemctl restart clouddragon.service
number

step "a reboot, and a power cut"
reboot
want "the service" "$(run systemctl is-active clouddragon.service)" active
number
crash
up
number

# --- removing ---

step "remove and purge"
run dpkg --remove clouddragon >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "remove"; }
! run systemctl is-active --quiet clouddragon.service || fail "the server still runs"
dpkg_i 99.0.0
number
run dpkg --purge clouddragon >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "purge"; }
rm -r "$root/etc/systemd/system/clouddragon.service.d"
run systemctl daemon-reload
[ -z "$(run systemctl list-unit-files --no-legend 'clouddragon*')" ] || fail "a purge leaves units"
want "failed units" "$(run systemctl --failed --no-legend)" ''
dpkg_i 0.0.1
number
run systemctl poweroff
wait $nspawn || true
nspawn=''
step "all of it holds"
