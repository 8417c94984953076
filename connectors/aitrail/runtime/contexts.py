"""What the configuration says about tenants and metadata, in the form that normalizers and ``Transform`` take."""

from collections.abc import Callable

from aitrail.config import Config, MappingConfig
from aitrail.event import ContentMode
from aitrail.normalize.outcome import Context


def context_of(mapping: MappingConfig, tenant: str) -> Context:
    """What the normalizers may know, from the configuration."""
    return Context(
        tenant_id=tenant,
        user_keys=mapping.user,
        department_keys=mapping.department,
        session_keys=mapping.session,
        purpose_keys=mapping.purpose,
        ticket_keys=mapping.ticket,
        tenant_keys=mapping.tenant,
    )


def mode_of(config: Config) -> Callable[[str], ContentMode]:
    """The content mode by tenant."""
    modes: dict[str, ContentMode] = {name: tenant.content for name, tenant in config.tenants.items()}
    fallback = config.tenant("default").content

    def lookup(tenant: str) -> ContentMode:
        return modes.get(tenant, fallback)

    return lookup


def needs_sealing(config: Config) -> bool:
    """Whether any tenant has the content mode ``sealed``."""
    return any(tenant.content == "sealed" for tenant in config.tenants.values())
