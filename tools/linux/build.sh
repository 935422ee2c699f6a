#!/usr/bin/env bash
# Builds a Linux kernel for the machine from Debian's source package, and the initrd with our first process: vmlinux, bzImage and
# initrd.cpio in $LINUX_CACHE/build-CONFIGURATION. Nothing of it goes into the repository.
#
#     tools/linux/build.sh [CONFIGURATION]     default: up-2level, see the *.config files beside this script
#
# LINUX_CACHE: where to, default ~/.cache/racetape/linux (1.7 GB). JOBS: compilers at once, default one for each CPU.
# Needs Debian's apt, gcc with -m32, make, flex, bison, bc.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
configuration=${1:-up-2level}
cache=${LINUX_CACHE:-$HOME/.cache/racetape/linux}
package=linux-source-6.1
source=$cache/$package
out=$cache/build-$configuration

for tool in gcc make flex bison bc xz python3; do
    command -v "$tool" >/dev/null || { echo "$0: $tool is missing" >&2; exit 2; }
done
[ -f "$here/$configuration.config" ] || { echo "$0: no such configuration: $configuration" >&2; exit 2; }
mkdir -p "$out"

if [ ! -f "$source/.unpacked" ]; then
    (cd "$cache" && apt-get download "$package" && dpkg-deb -x "$package"_*.deb package)
    tar -C "$cache" -xf "$cache/package/usr/src/$package.tar.xz"
    rm -rf "$cache/package" "$cache/$package"_*.deb
    touch "$source/.unpacked"
fi

# The same bytes whenever and wherever it is built.
export KBUILD_BUILD_TIMESTAMP='2011-06-01 00:00:00 UTC' KBUILD_BUILD_USER=racetape KBUILD_BUILD_HOST=racetape KBUILD_BUILD_VERSION=1
kernel() { make -s -C "$source" O="$out" ARCH=i386 -j"${JOBS:-$(nproc)}" "$@"; }
if ! cmp -s "$here/$configuration.config" "$out/racetape.config"; then
    kernel tinyconfig
    grep '^CONFIG_' "$here/$configuration.config" >>"$out/.config"
    kernel olddefconfig 2>/dev/null
    grep '^CONFIG_' "$here/$configuration.config" | while IFS== read -r name value; do
        got=$(grep "^$name=" "$out/.config" | cut -d= -f2 || true)
        [ "${got:-n}" = "$value" ] || echo "$0: $name is ${got:-n} in this kernel, not $value" >&2
    done
    cp "$here/$configuration.config" "$out/racetape.config"
fi
kernel vmlinux bzImage
cp "$out/arch/x86/boot/bzImage" "$out/bzImage"

gcc -m32 -march=i486 -O2 -Wall -Wextra -Werror -mgeneral-regs-only -fno-stack-protector -fno-pic -ffreestanding -nostdlib -static -no-pie \
    -Wl,--build-id=none -o "$out/first-process" "$here/init.c"
python3 "$here/initrd.py" "$out/first-process" "$out/initrd.cpio"
ls -l "$out/vmlinux" "$out/bzImage" "$out/initrd.cpio"
