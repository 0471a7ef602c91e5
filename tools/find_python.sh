#!/bin/sh
# Prints the Python to install Infergate with: the first that is new enough and can make virtual environments, of the
# programs named, or else of the system's own, python3 and its kin. One with the headers that compiling takes comes first.
# Distributions build their Python with profiles of what it runs, others often without: docs/performance.md has figures.
set -u
[ $# -gt 0 ] || set -- /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11

serves='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
compiles='import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'

usable=
for python; do
    "$python" -c "$serves" 2>/dev/null || continue
    if "$python" -c "$compiles" 2>/dev/null; then
        usable=$python
        break
    fi
    usable=${usable:-$python}
done
if [ -z "$usable" ]; then
    echo "Infergate needs Python 3.11 or newer with venv and ensurepip (Debian has them in python3-venv); set PYTHON=..." >&2
    exit 1
fi
command -v "$usable"
