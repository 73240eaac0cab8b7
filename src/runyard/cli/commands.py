"""Every command by name: where it lives and its one line of help. Nothing of them is imported here."""

from __future__ import annotations

from typing import NamedTuple

from cyclopts import App, Parameter


class Command(NamedTuple):
    path: str
    function: str
    help: str


COMMANDS = (
    Command("run", "run:run", "Run one command as a job, show its output, pass its exit code on."),
    Command("submit", "submit:submit", "Submit the jobs of one or more job files."),
    Command("jobs", "jobs:jobs", "List jobs."),
    Command("job", "jobs:job", "Show one job: its attempts, phases, outcome, outputs."),
    Command("logs", "logs:logs", "Show a job's log."),
    Command("cancel", "jobs:cancel", "Cancel jobs."),
    Command("retry", "jobs:retry", "Run a final job again, as a new job."),
    Command("why", "why:why", "Say why a job waits, pool by pool."),
    Command("artifacts", "artifacts:artifacts", "List a job's artifacts, or download them."),
    Command("delete", "jobs:delete", "Delete a final job with its logs and artifacts."),
    Command("queues", "queues:queues", "List queues."),
    Command("queue show", "queues:show", "Show one queue."),
    Command("queue set", "queues:set_queue", "Create a queue or change what is named."),
    Command("queue pause", "queues:pause", "Start no more jobs of a queue; what runs goes on."),
    Command("queue resume", "queues:resume", "Start jobs of a queue again."),
    Command("queue delete", "queues:delete", "Delete an empty queue."),
    Command("tenants", "tenants:tenants", "List tenants."),
    Command("tenant show", "tenants:show", "Show one tenant."),
    Command("tenant set", "tenants:set_tenant", "Change a tenant's weight and bounds."),
    Command("pools", "pools:pools", "List pools."),
    Command("pool show", "pools:show", "Show one pool."),
    Command("pool check", "pools:check", "Let the pool's owner try its provider."),
    Command("pool pause", "pools:pause", "Start no more jobs in a pool; what runs goes on."),
    Command("pool resume", "pools:resume", "Start jobs in a pool again."),
    Command("pool forget", "pools:forget", "Declare a pool's host dead: its unfinished attempts are lost."),
    Command("machines", "machines:machines", "List machines."),
    Command("machine show", "machines:show", "Show one machine."),
    Command("machine drain", "machines:drain", "Give a machine nothing new."),
    Command("machine undrain", "machines:undrain", "Give a drained machine work again."),
    Command("token create", "tokens:create", "Make a token; it is shown this once."),
    Command("token list", "tokens:list_tokens", "List tokens, without their secrets."),
    Command("token revoke", "tokens:revoke", "Make a token worthless."),
    Command("secret set", "secrets:set_secret", "Set a secret; its value comes from stdin or a file."),
    Command("secret list", "secrets:list_secrets", "List secrets, without their values."),
    Command("secret delete", "secrets:delete", "Delete a secret."),
    Command("secret rotate", "secrets:rotate", "Seal all secrets with the newest key."),
    Command("link", "links:link", "Print an address that opens the pages in a browser, once."),
    Command("audit", "audit:audit", "List who changed what."),
    Command("top", "top:top", "Watch queues, pools and jobs."),
    Command("config check", "config:check", "Check a configuration file, all problems at once."),
    Command("config show", "config:show", "Show the settings that hold, defaults filled in."),
    Command("prune", "prune:prune", "Remove resources that no job owns any more."),
    Command("doctor", "doctor:doctor", "Say what this host can isolate, and the cure for what it cannot."),
    Command("serve", "serve:serve", "Run the service."),
    Command(
        "registry-cache",
        "registry_cache:registry_cache",
        "Run the registry cache alone, without the service.",
    ),
    Command("bench", "bench:bench", "Measure this host and this service."),
    Command("simulate", "simulate:simulate", "Play seeded histories of faults, and check every promise."),
)
GROUPS = {
    "queue": "Show and change one queue.",
    "tenant": "Show and change one tenant.",
    "pool": "Show and operate one pool.",
    "machine": "Show and operate one machine.",
    "token": "Make and revoke tokens.",
    "secret": "Set, list and delete secrets.",
    "config": "Check and show the configuration.",
}


def create_app() -> App:
    app = App(
        name="runyard",
        help="Takes jobs from queues and runs each of them, isolated, wherever there is room.",
        help_format="plaintext",  # as markdown it would cost 100 ms of imports
        help_formatter="plain",
        version_format="plaintext",
        version=_version,
        default_parameter=Parameter(negative=(), show_default=_is_worth_showing),
        result_action="return_value",
    )
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for command in COMMANDS:
        *above, name = command.path.split()
        where = groups[above[0]] if above else app
        where.command(f"runyard.cli.{command.function}", name=name, help=command.help)
    app.register_install_completion_command(add_to_startup=False)
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("runyard")


def _is_worth_showing(value: object) -> str | None:
    return str(value) if value not in (None, (), [], False) else None
