"""A short run of the fuzzer over the core; `make fuzz` runs it for long (docs/fuzzing.md)."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "machine" / "core"
BUILDS = HERE.parents[1] / "build" / "fuzz-tests"


def sources_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted([*CORE.glob("*.[ch]"), *CORE.glob("*.def"), *HERE.glob("*.c"), *HERE.glob("*.sh")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


Fuzzer = Callable[[str], Path]


@pytest.fixture(scope="session")
def fuzzer(made_once: Callable[..., Path]) -> Fuzzer:
    """(how build.sh is to build it) -> the fuzzer of the sources as they are; compiling takes long, so it is kept."""
    if shutil.which("clang") is None:
        pytest.skip("clang is absent: tools/install-debian-packages.sh installs it")
    asked = subprocess.run(["clang", "--print-runtime-dir"], stdout=subprocess.PIPE, text=True, check=True)
    if not list(Path(asked.stdout.strip()).glob("libclang_rt.fuzzer*")):
        pytest.skip("clang's libFuzzer (libclang-rt) is absent: tools/install-debian-packages.sh installs it")
    sources = sources_hash()

    def built(how: str) -> Path:
        def build(folder: Path) -> None:
            for old in BUILDS.iterdir():
                if not old.name.startswith(sources):
                    shutil.rmtree(old, ignore_errors=True)
            subprocess.run([HERE / "build.sh", folder, how], check=True)

        return made_once(f"{sources}-{how}", build, BUILDS) / "fuzz_core"

    return built


def fuzz(fuzzer: Path, folder: Path, *options: str) -> str:
    """Runs it from the seeds kept here; what it printed. Fails with that if it found something."""
    corpus = folder / "corpus"
    corpus.mkdir()
    fixed = ("-timeout=30", "-max_len=600", "-len_control=0", f"-artifact_prefix={folder}/")
    # By a shell, which is small: what libFuzzer limits is the peak that the kernel tells of a process, and that of one
    # that Python starts begins with Python's own.
    command = ["sh", "-c", '"$@"; exit "$?"', "sh", fuzzer, *fixed, *options, corpus, HERE / "seeds"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0, text[-4000:]
    return text


def test_short_run(fuzzer: Fuzzer, tmp_path: Path) -> None:
    text = fuzz(fuzzer("short"), tmp_path, "-runs=3000", "-seed=1")
    assert "Done 3000 runs" in text


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 10))
def test_long_runs(fuzzer: Fuzzer, tmp_path: Path, seed: int) -> None:
    fuzz(fuzzer("fast"), tmp_path, "-runs=200000", f"-seed={seed}")
