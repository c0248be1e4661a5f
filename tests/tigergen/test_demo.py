"""The demo's stages: every one a command that exists, in an order that works; the whole journey once."""

import shlex
from pathlib import Path

import pytest
import typer.main

from kb.errors import UserError
from tigerdata.commands import data_app
from tigergen.commands import gen_app
from tigergen.demo import BUDGETS, demo, stages
from tigergen.stages import Journey

APPS = {"tigerdata": data_app, "tigergen": gen_app}


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_stage_is_a_command_that_parses(budget: str, tmp_path: Path) -> None:
    for stage in stages(tmp_path, BUDGETS[budget]):
        program, *words = stage.command
        command = typer.main.get_command(APPS[program])
        context = command.make_context(program, list(words), resilient_parsing=False)
        while getattr(command, "commands", None):
            name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
            context = command.make_context(name, list(words), parent=context)
        assert stage.story, shlex.join(stage.command)


def test_stages_form_a_graph_that_ends_in_the_report(tmp_path: Path) -> None:
    listed = stages(tmp_path, BUDGETS["demo"])
    Journey(listed, tmp_path)  # refuses a stage that comes before what it needs
    needed, todo = set(), ["report"]
    after = {stage.name: stage.after for stage in listed}
    while todo:
        name = todo.pop()
        needed.add(name)
        todo += after[name]
    assert needed == set(after), "every stage serves the report"


def test_unknown_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no budget 'week'; choose one of minute, demo, hour"):
        demo(tmp_path, "week")
