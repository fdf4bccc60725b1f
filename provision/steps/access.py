"""Who may use Docker without sudo."""

from __future__ import annotations

from provision.actions import GroupMember
from provision.model import CHANGE, Item, Notice
from provision.steps import ACCESS, Context, Result, settled

STEP = "docker"
GROUP = "docker"


def decide(ctx: Context) -> Result:
    """Users that are to be in the `docker` group, with what that means."""
    facts, users = ctx.facts, ctx.spec.docker.users
    if not users:
        return Result()
    items = []
    members = facts.groups.get(GROUP, ())
    for user in users:
        expected = {"group": GROUP, "member": user}
        identifier = f"docker/user/{user}"
        if user in members:
            items.append(settled(STEP, identifier, "group-member", f"{user} is in the docker group", expected, ACCESS))
            continue
        why = f"the playbook puts {user} into the docker group (as good as root on this host)"
        # The facts know login users of /etc/passwd only; a service's user or a directory's may still be there.
        if facts.users is not None and user not in facts.users:
            why += "; it is no local login user, so it must be one of a service or a directory"
        actual = {"group": GROUP, "member": ""}
        action = GroupMember(user, GROUP)
        items.append(Item(identifier, STEP, "group-member", CHANGE, why, expected, actual, action, phase=ACCESS))
    who = ", ".join(users)
    notice = f"Members of the docker group ({who}) can become root on this host; they need a new login for it to take effect."
    return Result(tuple(items), notices=(Notice("docker/group", notice),))
