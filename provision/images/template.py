"""The Dockerfile and .dockerignore of `mlhost image init`: every choice with its reason beside it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from provision.images.cuda import Choice
from provision.images.project import Project

PYTHON = "python3 python3-venv"
USER = 10001
IGNORE = """\
# What the image does not need. A small context builds fast, and no secret or data set gets in by accident.
.git
.github
.venv
venv
**/__pycache__
**/*.pyc
**/.pytest_cache
**/.mypy_cache
**/.ruff_cache
**/.ipynb_checkpoints
**/.DS_Store
.env
.env.*
**/*.pem
**/id_rsa*
**/id_ed25519*
# Data, weights and results are mounted, not baked in.
data
datasets
checkpoints
outputs
runs
wandb
mlruns
**/*.ckpt
**/*.pt
**/*.safetensors
*.tar
*.tar.*
Dockerfile
.dockerignore
"""


@dataclass(frozen=True)
class Written:
    """The two texts, and what the user should still do, a sentence each."""

    dockerfile: str
    dockerignore: str
    notes: tuple[str, ...]


def flavor(project: Project) -> tuple[str, str]:
    """Which kind of CUDA image, and why."""
    if project.compiles:
        return "cudnn-devel", "something here is compiled against CUDA, which needs nvcc and headers"
    if project.brings:
        return "base", f"the wheels of {' and '.join(project.frameworks)} bring the CUDA libraries, so that the small image does"
    if project.frameworks:
        return "cudnn-runtime", f"CUDA's libraries are not in the wheels of {' and '.join(project.frameworks)}, which take them from the system"
    return "base", "no package that was recognised needs CUDA's libraries from the system; `cudnn-runtime` has them"


def write(project: Project, choice: Choice, packages: Sequence[str] = ()) -> Written:
    """Make both files. `packages` are further Debian packages of the image."""
    kind, because = flavor(project)
    notes = []
    if project.make_lock:
        notes.append(f"Lock the dependencies by hash: {project.make_lock}; then run this again.")
    if not choice.verified:
        notes.append(f"That {choice.image(kind)} is published was not seen by mlhost's authors; --pin asks the registry.")
    notes.append("Pin the base image: mlhost image build --pin. Then: mlhost image build --reproducible --check .")
    reasons = [*choice.why, because]
    head = [f"CUDA {choice.release}: {'; '.join(reasons)}."]
    if project.brings:
        head.append(f"Wheels for {choice.wheels} or older fit the drivers (PyTorch: --index-url …/whl/{choice.wheels}).")
    body = _conda(project) if project.kind == "conda" else _pip(project)
    text = "\n\n".join([
        comment(*head) + f"\nARG BASE={choice.image(kind)}",
        *_fetch(project, [*PYTHON.split(), *packages] if project.kind != "conda" else list(packages)),
        *body,
        _end(project),
    ])
    return Written(text + "\n", IGNORE, tuple(notes))


def comment(*sentences: str) -> str:
    """Sentences as the lines of a Dockerfile's comment."""
    return "\n".join(textwrap.fill(text, 118, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False) for text in sentences)


def _fetch(project: Project, packages: Sequence[str]) -> list[str]:
    debs = (
        "RUN mkdir -p /debs/partial && apt-get update && \\\n"
        f"    apt-get install -y --no-install-recommends --download-only -o Dir::Cache::archives=/debs {' '.join(packages)} && \\\n"
        "    rm -rf /debs/partial /debs/lock"
    ) if packages else "RUN mkdir -p /debs"
    rows = [
        comment("fetch: all that needs a network happens here, and nothing else. `mlhost image build --reproducible` builds the rest without one.")
        + "\nFROM ${BASE} AS fetch\nENV DEBIAN_FRONTEND=noninteractive\n" + debs
    ]
    if project.kind == "pip":
        hashes = "--require-hashes " if project.hashed else ""
        rows.append(
            "RUN apt-get install -y --no-install-recommends python3-pip\n"
            f"COPY {project.file} /requirements.txt\n"
            f"RUN pip download --no-cache-dir --only-binary=:all: {hashes}--dest /wheels --requirement /requirements.txt"
        )
    elif project.kind == "conda":
        rows.append(
            "COPY --from=conda /bin/micromamba /usr/local/bin/micromamba\n"
            f"COPY {project.file} /conda/{project.file}\n"
            f"RUN MAMBA_ROOT_PREFIX=/conda micromamba create --yes --download-only --prefix /opt/env --file /conda/{project.file}"
        )
        rows.insert(0, "FROM docker.io/mambaorg/micromamba:2 AS conda")
    return rows


_SYSTEM = """FROM ${BASE} AS system
ARG SOURCE_DATE_EPOCH
COPY --from=fetch /debs /debs
RUN if ls /debs/*.deb >/dev/null 2>&1; then DEBIAN_FRONTEND=noninteractive dpkg --install /debs/*.deb; fi && \\
    rm -rf /var/log/dpkg.log /var/log/alternatives.log /var/log/apt /var/cache/ldconfig/aux-cache"""


def _system() -> str:
    why = comment("system: what changes least comes first, so that a change of the program rebuilds neither this nor the packages.")
    return f"{why}\n{_SYSTEM}"


def _pip(project: Project) -> list[str]:
    if project.kind != "pip":
        return [_system()]
    hashes = "--require-hashes " if project.hashed else ""
    why = comment(
        "install: from the fetched wheels alone, in a stage of its own, so that neither pip's files nor the wheels get into the image.",
        "With SOURCE_DATE_EPOCH set, Python files are compiled to be checked by hash, not by time.",
    )
    return [
        _system(),
        f"{why}\nFROM system AS install\nARG SOURCE_DATE_EPOCH\nCOPY --from=fetch /wheels /wheels\nCOPY --from=fetch /requirements.txt /requirements.txt\n"
        "RUN python3 -m venv /opt/env && \\\n"
        f"    PYTHONHASHSEED=0 /opt/env/bin/pip install --no-cache-dir --no-index --find-links=/wheels {hashes}--requirement /requirements.txt",
    ]


def _conda(project: Project) -> list[str]:
    why = comment("install: from the fetched packages alone.")
    return [
        _system(),
        f"{why}\nFROM system AS install\nARG SOURCE_DATE_EPOCH\nCOPY --from=fetch /usr/local/bin/micromamba /usr/local/bin/micromamba\n"
        "COPY --from=fetch /conda /conda\n"
        f"RUN MAMBA_ROOT_PREFIX=/conda micromamba create --yes --offline --always-copy --prefix /opt/env --file /conda/{project.file}",
    ]


def _end(project: Project) -> str:
    why = comment(
        "The image: not root (files that it writes into mounted folders are not root's; `mlhost run` gives it your own uid), the packages as one layer, "
        "the program last, because it changes most.",
    )
    rows = [why, "FROM system", "ARG SOURCE_DATE_EPOCH", f"RUN useradd --uid {USER} --create-home --shell /usr/sbin/nologin app"]
    if project.kind != "none":
        rows.append("COPY --from=install /opt/env /opt/env")
    rows += [
        "ENV PATH=/opt/env/bin:$PATH \\",
        "    PYTHONUNBUFFERED=1 \\",
        "    PYTHONDONTWRITEBYTECODE=1 \\",
        "    NVIDIA_VISIBLE_DEVICES=all \\",
        "    NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        "WORKDIR /app",
        "COPY --chown=app:app . .",
        "USER app",
        f"CMD {json.dumps(['python3', project.entry] if project.entry else ['python3'])}",
    ]
    return "\n".join(rows)
