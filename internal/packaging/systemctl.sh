#!/bin/sh
# A stand-in for systemctl in a tree without systemd: it starts and stops
# clouddragon.service as its unit says, as far as that goes without systemd.
set -u
now=no
while [ $# -gt 0 ]; do
	case $1 in
	--now) now=yes ;;
	-*) ;;
	*) break ;;
	esac
	shift
done
verb=$1
shift
for arg; do
	case $arg in --now) now=yes ;; -*) ;; *) unit=${arg%.service} ;; esac
done
pidfile=/run/clouddragon.pid log=/var/log/clouddragon.log

active() { [ -s $pidfile ] && grep -qs '^State:[[:space:]][^ZX]' "/proc/$(cat $pidfile)/status"; }

start() {
	active && return
	for dir in /etc/systemd/system /usr/local/lib/systemd/system /lib/systemd/system; do
		file=$dir/clouddragon.service
		[ ! -e $file ] || break
	done
	user=$(sed -n 's/^User=//p' $file)
	command=$(sed -n 's/^ExecStart=//p' $file)
	install -d -o "$user" -g "$user" -m 750 /var/lib/clouddragon
	install -d -o "$user" -g "$user" -m 755 /run/clouddragon
	: >$log
	# shellcheck disable=SC2086
	(cd /var/lib/clouddragon && umask 027 && exec setsid setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs \
		$command </dev/null >>$log 2>&1) &
	echo $! >$pidfile
	# As with Type=notify.
	tries=0
	until grep -qs 'msg=listening' $log; do
		active || { cat $log >&2; return 1; }
		tries=$((tries + 1))
		[ $tries -lt 300 ] || { echo "clouddragon does not listen" >&2; return 1; }
		sleep 0.1
	done
}

stop() {
	! active || kill "$(cat $pidfile)"
	while active; do sleep 0.05; done
}

[ "${unit-clouddragon}" = clouddragon ] || [ "$verb" = is-enabled ] || exit 0 # a timer
case $verb in
start) start ;;
stop) stop ;;
restart) stop && start ;;
is-active) active ;;
is-enabled)
	set -- /etc/systemd/system/*.wants/"$unit" /etc/systemd/system/*.wants/"$unit.service"
	for link; do [ ! -L "$link" ] || { echo enabled; exit 0; }; done
	echo disabled
	exit 1
	;;
enable | preset)
	mkdir -p /etc/systemd/system/multi-user.target.wants
	ln -sf clouddragon.service /etc/systemd/system/multi-user.target.wants/clouddragon.service
	[ $now = no ] || start
	;;
esac
