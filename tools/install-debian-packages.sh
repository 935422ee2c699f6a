#!/bin/sh
# What the tests use and pip cannot bring: compilers for the guest images and the fuzzer, a server for archives over SFTP.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y --no-install-recommends gcc gcc-multilib libc6-dev clang openssh-server "$(
	# The sanitizer and fuzzer run-time libraries are named after the version that `clang` is.
	apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/libclang-rt-\1-dev/p'
)"
