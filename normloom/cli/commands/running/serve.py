"""normloom serve."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from normloom.cli.common import err, escaped, out
from normloom.cli.options import SettingsOptions, taking
from normloom.cli.pages import is_loopback
from normloom.core.errors import ConfigError, UsageError
from normloom.core.machine.object_path import place_of
from normloom.prefect.names import HEARTBEAT_SECONDS, SERVER_PASSWORD

QUERY_SECONDS = 2  # between two questions for runs to start


@taking(SettingsOptions)
def serve(
    given: SettingsOptions,
    systems: Annotated[
        list[str] | None,
        typer.Argument(help="Systems to serve, or Python files of flows (default: all systems that the settings fit)."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reachable from this machine only.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(help="Port of the UI and the API.")] = 4200,
    schedule: Annotated[
        str | None, typer.Option(help="When to build, as cron: '0 2 * * *' is every night at two.", show_default=False)
    ] = None,
    timezone: Annotated[str, typer.Option(help="Time zone of the schedule, such as Europe/Berlin.")] = "UTC",
    active: Annotated[
        bool | None,
        typer.Option(
            "--active/--paused",
            help="Whether the schedule is on (default: on if it is new, else as it was set in the UI).",
            show_default=False,
        ),
    ] = None,
    builds: Annotated[int, typer.Option(min=1, help="Number of builds to run at the same time.")] = 1,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics at http://127.0.0.1:PORT/metrics.")
    ] = None,
    no_auth: Annotated[
        bool,
        typer.Option("--no-auth", help=f"With another --host: allow access without {SERVER_PASSWORD}."),
    ] = False,
) -> None:
    """Serve Prefect's UI and run the builds that are scheduled or started there.

    Each system is a deployment with the parameters of normloom build: in the UI you can build a single stage (only) or
    start from a stage (from_stage), picked from a list. Schedules that were paused, changed or added in the UI survive
    a restart. Builds queue: one system is built at a time. Ctrl-C stops the builds and the server; finished parts are
    kept. Builds of the same store in other terminals show up too.

    Examples:

        normloom serve

        normloom serve savacu --profile gpu --schedule "0 2 * * *" --timezone Europe/Berlin

        prefect deployment run savacu/serve --param 'only=["judge_0"]'
    """
    from normloom.cli.machine.doctor import examine_store
    from normloom.core.names import is_flow_file
    from normloom.prefect.notifications.watch import watching
    from normloom.prefect.run_marks import settling
    from normloom.prefect.server import ServerError, announced, prefect_server, serving, using_server
    from normloom.prefect.serving.schedules import cron, served
    from normloom.readers.locate import absolute
    from normloom.settings.flow_file import attribute_of
    from normloom.settings.systems import name_of
    from normloom.store.store import Store

    require_login(host, open_to_all=no_auth)
    store, profile = place_of(given.store), given.profile
    if (examined := examine_store(store)).state == "broken":
        raise UsageError(f"{examined.detail}: {examined.remedy}")
    home = Store(store).home  # where builds on this machine look for the server of a store
    if url := serving(home):
        raise UsageError(f"{store} is being served already, at {url.removesuffix('/api')}")
    profile = str(Path(profile).absolute()) if Path(profile).is_file() else profile
    names = _fitting(systems, profile, given.assignments, store)
    parameters = {
        "profile": profile,
        "source": given.source and absolute(given.source),
        "text_column": given.text_column,
        "limit": given.limit,
        "settings": given.set_ or [],
        "store": str(store),
    }
    when = cron(schedule, timezone) if schedule else None
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", HEARTBEAT_SECONDS)
    os.environ.setdefault("DO_NOT_TRACK", "1")
    lost = threading.Event()
    unexpected = f"Prefect's server ended unexpectedly, see {home / '.serve.log'}; rerun the command"

    def stop() -> None:
        lost.set()
        os.kill(os.getpid(), signal.SIGTERM)  # builds at work are stopped, finished parts kept

    try:
        with (
            prefect_server(host=host, port=port, private=False, log=home / ".serve.log", died=stop) as url,
            using_server(url),
            announced(home, url),
            settling(home),
            watching(store, metrics_port=metrics_port),
        ):
            deployments = [
                served(
                    name_of(target),
                    parameters,
                    when,
                    active=active,
                    attribute=attribute_of(target) if is_flow_file(target) else None,
                )
                for target in names
            ]
            _serve(deployments, url, builds)
    # Tests see what follows; coverage does not measure what comes after an interrupt.
    # SIGTERM may come at any moment, through `stop`; a request may meet a server that is gone:
    except BaseException as error:  # pragma: no cover
        if not lost.is_set():
            raise
        raise ServerError(unexpected) from error
    if lost.is_set():  # pragma: no cover
        raise ServerError(unexpected)
    out.print("stopped; finished parts are kept")  # pragma: no cover


def _fitting(systems: list[str] | None, profile: str, assignments: list[str], store: Path) -> list[str]:
    """Return the systems to serve: those named, or all that fit profile and settings; print those that do not."""
    from normloom.settings.settings import stages_for
    from normloom.settings.systems import systems as known
    from normloom.store.store import Store

    names, refused = [], {}
    for name in systems or known():
        try:
            stages_for(name, profile=profile, assignments=assignments, store=Store(store))
            names.append(name)
        except ConfigError as error:
            refused[name] = error
    if refused and (systems or not names):
        raise next(iter(refused.values()))
    for name, reason in refused.items():
        err.print(f"{name} is not served: {escaped(reason)}", highlight=False, soft_wrap=True)
    return names


def require_login(host: str, *, open_to_all: bool) -> None:
    """Refuse to listen on a public address without a password, unless that is explicitly allowed."""
    if not (is_loopback(host) or open_to_all or os.environ.get(SERVER_PASSWORD)):
        raise UsageError(
            f"--host {host} lets others reach the server, and start builds: "
            f"set {SERVER_PASSWORD}=user:password in the environment, or give --no-auth if the network is trusted"
        )


def _serve(deployments: list[Any], url: str, builds: int) -> None:
    import asyncio

    from normloom.cli.forms import offer_stages
    from normloom.prefect.serving.automations import install
    from normloom.prefect.warm.held import WarmRunner, warm_process

    install()
    address = url.removesuffix("/api")
    out.print(f"[bold]Prefect UI[/]  [link={address}]{address}[/]")
    for deployment in deployments:
        full = f"{deployment.flow_name}/{deployment.name}"
        out.print(f"[bold]{full}[/]  PREFECT_API_URL={url} prefect deployment run {full}", highlight=False)
    out.print("Ctrl-C stops the server and its builds; finished parts are kept.")
    with warm_process() as warm, suppress(KeyboardInterrupt, asyncio.CancelledError):
        runner = WarmRunner(warm, limit=builds, pause_on_shutdown=False, query_seconds=_query_seconds())
        for deployment in deployments:
            runner.add_deployment(deployment)
            offer_stages(f"{deployment.flow_name}/{deployment.name}")
        asyncio.run(runner.start())


def _query_seconds() -> int:
    """Return how often to ask for runs; whoever starts one in the UI would wait for up to Prefect's ten seconds."""
    from prefect.settings import get_current_settings

    runner = get_current_settings().runner
    return runner.poll_frequency if "poll_frequency" in runner.model_fields_set else QUERY_SECONDS
