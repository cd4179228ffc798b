"""normloom settings."""

from __future__ import annotations

from itertools import groupby

from rich.markup import escape
from rich.table import Table

from normloom.cli.common import DEFAULT_PROFILE, JsonOption, ProfileOption, SetOption, SystemArgument, out
from normloom.core.formats.json_text import json_text


def settings(
    system: SystemArgument,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """List the settings of a system: value with this profile, default and meaning.

    Change one with --set NAME=VALUE, or in your own profile.

    Examples:

        normloom settings savacu

        normloom settings benchmark --profile gpu --json
    """
    from normloom.settings.config import load_profile, override, validated
    from normloom.settings.setting_list import settings_of
    from normloom.settings.systems import system_named

    chosen = system_named(system)
    config, resources = validated(chosen.config, override(load_profile(profile, system), set_ or []))
    found = [*settings_of(config), *settings_of(resources, prefix="resources.")]
    if json_:
        print(json_text([setting.as_json() for setting in found]))
        return
    for section, members in groupby(found, key=lambda setting: setting.section):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=escape(section), title_justify="left")
        for heading, ratio in (("setting", 4), ("value", 4), ("meaning", 5)):
            table.add_column(heading, overflow="fold", ratio=ratio)
        for setting in members:
            value = escape(setting.value) if setting.changed else f"[dim]{escape(setting.value)}"
            default = f"default {setting.default}" if setting.changed and setting.default is not None else ""
            meaning = "; ".join(filter(None, (setting.description, setting.allowed, default)))
            table.add_row(escape(setting.name), value, escape(meaning))
        out.print(table)
        out.print()
