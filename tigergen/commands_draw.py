"""The commands `tigergen sample` and `tigergen grid`: a few images to look at, from a prompt, a mask and a donor."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tigerdata.console import JsonOption, WorkspaceOption, open_workspace, show

PromptOption = Annotated[
    str | None,
    typer.Option(help="Report text, Chinese or English, or phrases of the vocabulary; default: the donor's prompt."),
]
FgOption = Annotated[str | None, typer.Option(help="Foreground prompt as it is, class first; instead of --prompt.")]
BgOption = Annotated[str | None, typer.Option(help="Background prompt as it is; with --fg.")]
LabelOption = Annotated[str | None, typer.Option(help="Class; default: the one that the prompt names.")]
NoduleOption = Annotated[int, typer.Option(min=1, help="Which nodule of a report that describes several.")]
DonorOption = Annotated[
    str | None,
    typer.Option(help="Image id, or image file, whose edges are kept; default: the training image that fits best."),
]
MaskOption = Annotated[
    Path | None, typer.Option(help="Image of the donor's size, white where the nodule is to be; default: its own.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the noise; the next images take the next seeds.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Sampling steps; default: the model's.")]
GuidanceOption = Annotated[float | None, typer.Option(help="Guidance (beta of equation 13); default: the model's.")]
SamplerOption = Annotated[str | None, typer.Option(help="dpm++, unipc or ddim; default: the model's.")]
ModeOption = Annotated[str | None, typer.Option(help="joint, sequential, fg, bg, sum or text; default: the model's.")]
StrengthOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Refine the donor's image: 0 keeps it, 1 is all noise.")
]
ModelOption = Annotated[Path | None, typer.Option(help="Model folder; default: the workspace's fine model.")]


def sample(
    out: Annotated[Path, typer.Option(help="PNG to write; with --n they are numbered.")] = Path("sample.png"),
    prompt: PromptOption = None,
    fg: FgOption = None,
    bg: BgOption = None,
    label: LabelOption = None,
    nodule: NoduleOption = 1,
    donor: DonorOption = None,
    mask: MaskOption = None,
    seed: SeedOption = 0,
    n: Annotated[int, typer.Option(min=1, help="How many images.")] = 1,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    sampler: SamplerOption = None,
    mode: ModeOption = None,
    strength: StrengthOption = None,
    model: ModelOption = None,
    run: Annotated[
        Path | None, typer.Option(help="Augmented folder: make one of its images again, instead of a prompt.")
    ] = None,
    index: Annotated[int, typer.Option(min=0, help="With --run: which image.")] = 0,
    attempt: Annotated[
        int | None, typer.Option(min=0, help="With --run: which attempt; default: the accepted one.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw one image, or --n, and say how the prompt was understood; or make an image of a run again.

    Example: tigergen sample --prompt "hypoechoic solid nodule with irregular margin, follicular carcinoma" --steps 2
    --out sample.png -w study
    """
    from kb.errors import UsageError
    from tigergen.augment import one

    ws = open_workspace(workspace)
    if run is not None:
        if not (prompt is None and fg is None and donor is None and mask is None):
            raise UsageError("--run says what to draw; leave out --prompt, --fg, --donor and --mask.")
        show(one.remake(ws.path, run, index, attempt, out), as_json)
        return
    how = {"steps": steps, "guidance": guidance, "sampler": sampler, "mode": mode, "strength": strength}
    asked = _asked(ws, prompt, fg, bg, label, nodule)
    show(one.sample(_studio(ws, model, how), out, asked, donor, mask, seed, n), as_json)


def grid(
    attribute: Annotated[str, typer.Option(help="The attribute to go through, such as echogenicity.")],
    values: Annotated[str | None, typer.Option(help="Its values, separated by commas; default: all.")] = None,
    out: Annotated[Path, typer.Option(help="The sheet; single images go into a folder of its name.")] = Path(
        "grid.png"
    ),
    prompt: PromptOption = None,
    fg: FgOption = None,
    bg: BgOption = None,
    label: LabelOption = None,
    nodule: NoduleOption = 1,
    donor: DonorOption = None,
    mask: MaskOption = None,
    seed: SeedOption = 0,
    n: Annotated[int, typer.Option(min=1, help="Rows of the sheet, a seed each.")] = 1,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    sampler: SamplerOption = None,
    mode: ModeOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw one prompt with each value of an attribute, everything else fixed, side by side on a captioned sheet.

    Example: tigergen grid --attribute echogenicity --label FTC --prompt "solid nodule, regular shape" --steps 2
    --out grid.png -w study
    """
    from tigergen.augment import grid as grids

    ws = open_workspace(workspace)
    how = {"steps": steps, "guidance": guidance, "sampler": sampler, "mode": mode}
    chosen = [v.strip() for v in values.split(",") if v.strip()] if values else None
    asked = _asked(ws, prompt, fg, bg, label, nodule)
    show(grids.grid(_studio(ws, model, how), out, attribute, chosen, asked, donor, mask, seed, n), as_json)


def _studio(ws: Any, model: Path | None, how: dict[str, Any]) -> Any:
    from tigergen.augment.one import Studio
    from tigergen.workshop import FINE, model_folder

    return Studio.open(ws, model or model_folder(ws, FINE), **how)


def _asked(
    ws: Any, prompt: str | None, fg: str | None, bg: str | None, label: str | None, nodule: int
) -> Any:  # fmt: skip
    """The prompt as it was given, or None."""
    from kb.errors import UsageError
    from tigergen.augment import asked

    if prompt is not None and fg is not None:
        raise UsageError("give either --prompt or --fg.")
    if fg is None and bg is not None:
        raise UsageError("--bg goes with --fg; with --prompt alone, each value finds its own encoder.")
    if fg is not None:
        return asked.from_phrases(ws.kb, fg, bg or "", label)
    if prompt is not None:
        return asked.from_text(ws.kb, ws.domain, prompt, label, nodule)
    if label is not None:
        raise UsageError("--label goes with --prompt or --fg.")
    return None
