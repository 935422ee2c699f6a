#!/bin/sh
# build.sh FOLDER [fast|full|short]: the fuzzer over machine/core, with libFuzzer, ASan and UBSan, as FOLDER/fuzz_core.
# full: with the checks of UBSan that every single access pays for, and with operands of comparisons as hints for the
# fuzzer; it takes five times as long to compile, and each input twice as long or more.
# short: with the same checks as fast, but for short runs: ASan's are calls, which compile in half the time and take
# half as long again to run, and of debug information there are only lines.
set -eu
home=$(cd "$(dirname "$0")/../.." && pwd)
checks="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined"
fast="-O2 $checks -fno-sanitize=alignment,null,object-size,pointer-overflow -fno-sanitize-coverage=trace-cmp"
case "${2:-}" in
full) checks="-g -O1 $checks" ;;
short) checks="-gline-tables-only -mllvm -asan-instrumentation-with-call-threshold=0 $fast" ;;
*) checks="-g $fast" ;;
esac
mkdir -p "$1"
{
	find "$home/machine/core" -name '*.c' ! -name 'py_*.c' ! -name module.c
	echo "$home/tests/fuzz/fuzz_core.c"
} | xargs -P "$(nproc)" -I{} sh -c 'clang -c -std=c11 -UNDEBUG -Wall -Wextra -Wno-unknown-pragmas \
	-I"$1/machine/core" $4 "$2" -o "$3/$(basename "$2" .c).o"' sh "$home" {} "$1" "$checks"
clang -fsanitize=fuzzer,address,undefined "$1"/*.o -o "$1/fuzz_core.new"
mv "$1/fuzz_core.new" "$1/fuzz_core"
