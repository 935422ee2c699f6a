#!/bin/sh
# build.sh FOLDER [full]: the fuzzer over machine/core, with libFuzzer, ASan and UBSan, as FOLDER/fuzz_core.
# full: with the checks of UBSan that every single access pays for, and with operands of comparisons as hints for the
# fuzzer; it takes five times as long to compile, and each input twice as long or more.
set -eu
home=$(cd "$(dirname "$0")/../.." && pwd)
checks="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined"
if [ "${2:-}" = full ]; then
	checks="-O1 $checks"
else
	checks="-O2 $checks -fno-sanitize=alignment,null,object-size,pointer-overflow -fno-sanitize-coverage=trace-cmp"
fi
mkdir -p "$1"
{
	find "$home/machine/core" -name '*.c' ! -name 'py_*.c' ! -name module.c
	echo "$home/tests/fuzz/fuzz_core.c"
} | xargs -P "$(nproc)" -I{} sh -c 'clang -c -std=c11 -g -UNDEBUG -Wall -Wextra -Wno-unknown-pragmas \
	-I"$1/machine/core" $4 "$2" -o "$3/$(basename "$2" .c).o"' sh "$home" {} "$1" "$checks"
clang -fsanitize=fuzzer,address,undefined "$1"/*.o -o "$1/fuzz_core.new"
mv "$1/fuzz_core.new" "$1/fuzz_core"
