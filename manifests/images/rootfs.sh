#!/bin/sh
# Makes a root directory that holds a program and what it needs to run: the
# loader and C libraries it was linked with, and the files that name users and
# certificate authorities.
#
#   rootfs.sh DIRECTORY PROGRAM
set -eu
root=$1 program=$2

loader=$(readelf -l "$program" | sed -n 's/.*program interpreter: \(.*\)]/\1/p')
case $loader in
*aarch64*) triplet=aarch64-linux-gnu ;;
*x86-64*) triplet=x86_64-linux-gnu ;;
*) echo "rootfs.sh: $program: unknown loader '$loader'" >&2; exit 1 ;;
esac

# library prints where a library of the target is: beside the cross compiler, or
# the system's own.
library() {
	for dir in /usr/$triplet/lib /usr/lib/$triplet /usr/lib/$triplet/*; do
		[ -e "$dir/$1" ] && { echo "$dir/$1"; return; }
	done
	echo "rootfs.sh: no $1 for $triplet" >&2
	exit 1
}

# take copies what a file needs, and what that needs.
take() {
	for name in $(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
		[ -e "$root/lib/$triplet/$name" ] && continue
		from=$(library "$name")
		install -D -m 0755 "$from" "$root/lib/$triplet/$name"
		take "$root/lib/$triplet/$name"
	done
}

install -D -m 0755 "$program" "$root/usr/local/bin/$(basename "$program")"
install -D -m 0755 "$(library "$(basename "$loader")")" "$root$loader"
take "$program"
install -d -m 1777 "$root/tmp"
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
printf 'root:x:0:0:root:/:/sbin/nologin\nsedna:x:65532:65532:sedna:/:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nsedna:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
