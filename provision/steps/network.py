"""The proxy of the playbook, for apt and for the Docker daemon and its pulls. Credentials stay in files only root can read."""

from __future__ import annotations

from urllib.parse import urlsplit

from provision.actions import File
from provision.model import CHANGE, Notice
from provision.steps import BEFORE_PACKAGES, REPAIR, Context, Result
from provision.steps.files import file_item
from provision.watched import PROXY_APT, PROXY_DROP_IN, PROXY_ENVIRONMENT

STEP = "proxy"


def decide(ctx: Context) -> Result:
    """Files that tell apt and Docker of the proxy; nothing where the playbook names none."""
    proxy, facts = ctx.spec.proxy, ctx.facts
    if not proxy.http and not proxy.https:
        return Result()
    http, https = proxy.http or proxy.https, proxy.https or proxy.http
    secret = any(urlsplit(url).password or urlsplit(url).username for url in (http, https))
    apt = [f'Acquire::http::Proxy "{http}";', f'Acquire::https::Proxy "{https}";']
    apt += [
        f'Acquire::{scheme}::Proxy::{host} "DIRECT";'
        for host in proxy.no_proxy
        for scheme in ("http", "https")
        if not set(host) & set('*/";{} \\')
    ]
    environment = [f"HTTP_PROXY={http}", f"HTTPS_PROXY={https}", f"NO_PROXY={','.join(proxy.no_proxy)}"]
    header = "Written by mlhost from the playbook's `proxy`."
    files = (
        (
            "proxy/apt",
            File(PROXY_APT, f"// {header}\n" + "\n".join(apt) + "\n", "0600" if secret else "0644"),
            "apt is to use the playbook's proxy",
            REPAIR,
        ),
        (
            "proxy/docker-environment",
            File(PROXY_ENVIRONMENT, f"# {header}\n" + "\n".join(environment) + "\n", "0600"),
            "the Docker daemon is to use the playbook's proxy",
            BEFORE_PACKAGES,
        ),
        (
            "proxy/docker-unit",
            File(PROXY_DROP_IN, f"# {header}\n[Service]\nEnvironmentFile={PROXY_ENVIRONMENT}\n"),
            "the Docker daemon reads its proxy from there",
            BEFORE_PACKAGES,
        ),
    )
    apt_here = ctx.platform.family == "debian"
    items = tuple(
        file_item(facts, STEP, identifier, action, why, phase)
        for identifier, action, why, phase in files
        if apt_here or action.path != PROXY_APT
    )
    changed = any(i.state == CHANGE for i in items if i.id != "proxy/apt")
    notices: tuple[Notice, ...] = ()
    if not apt_here:
        text = f"mlhost's own package work uses the playbook's proxy; {ctx.platform.package_manager} at other times has its own settings."
        notices = (Notice("proxy/packages", text),)
    return Result(items, notices=notices, restart="it reads its proxy only when it starts" if changed else "")
