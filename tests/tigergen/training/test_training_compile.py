"""training.compile: the same steps through torch.compile, and a plain sentence where it cannot be used."""

from functools import partialmethod
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from kb.errors import UserError
from tigergen.model import add_control, build
from tigergen.model.tokens import split_phrases
from tigergen.training import loop
from tigergen.training.tasks import Task, fine_task


def fine(toy: ModuleType, *overrides: str) -> tuple[Task, dict]:
    cases, preset = toy.toy_cases(), toy.micro("training.held_out_every=2", "training.held_out_images=3", *overrides)
    phrases = sorted({phrase for prompt in (*cases.fg, *cases.bg) for phrase in split_phrases(prompt)})
    pipe = add_control(build(preset, phrases, images=cases.images))
    return fine_task(pipe, cases, preset, cases, None, None), preset["training"]


def test_a_compiled_run_takes_the_same_steps(toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Generating C++ takes minutes; what goes into it, the traced step, is run as it is.
    traced: list[int] = []

    def backend(graph: torch.fx.GraphModule, example: list) -> object:
        traced.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))
    found = {}
    for compiled in ("false", "true"):
        task, settings = fine(toy, f"training.compile={compiled}")
        (tmp_path / compiled).mkdir()
        figures = loop.train(task, settings, 2, tmp_path / compiled)
        found[compiled] = (figures["held_out"], [p.detach().clone() for p in task.module.parameters()])
    assert len(traced) == 1, "one graph: no break, and no other one for the held-out batch"
    assert found["true"][0] == found["false"][0]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found["true"][1], found["false"][1], strict=True))


def test_without_a_compiler_it_is_a_user_error(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "")
    task, settings = fine(toy, "training.compile=true")
    with pytest.raises(UserError, match="C\\+\\+ compiler"):
        loop.train(task, settings, 1, tmp_path)
