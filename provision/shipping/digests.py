"""From a tag to the digest that it means now."""

from __future__ import annotations

from provision.errors import Failed
from provision.imageconfig import RegistryError, ask, reference
from provision.shipping import engine


def digest_of(name: str) -> tuple[str, str]:
    """The digest of an image by its name, and who said so: its registry, or where that cannot be asked this machine's Docker, which pulled or pushed it.

    Raises Failed where nobody knows one.
    """
    import platform

    try:
        # The digest of the name itself: an index, where there are several architectures.
        found = ask(name, platform.machine()).digest
        if found:
            return found, "its registry says so"
        why = "its registry names no digest"
    except RegistryError as error:
        why = error.message
    try:
        image = engine.images([name])[0]
    except engine.NoSuchImage:
        raise Failed(f"{name} cannot be pinned: {why}", "Check the name, or pull it first.") from None
    wanted = reference(name)
    for known in image.digests:
        repository, _, digest = known.partition("@")
        other = reference(repository)
        if (other.registry, other.repository) == (wanted.registry, wanted.repository):
            return digest, "this machine's Docker got it under that digest"
    raise Failed(f"{name} cannot be pinned: it was made here and is in no registry.", "Push it somewhere (`mlhost image push`), and build on that name.")
