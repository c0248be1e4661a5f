"""Draw a running journey: a live table on a terminal, plain lines in a log."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tigerdata.progress import LOG_EVERY_S, describe

if TYPE_CHECKING:
    from tigergen.stages import Journey

BAR_CELLS = 20


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(75)
    '1:15'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def bar(event: dict[str, Any]) -> str:
    """A text bar of an event's `step` of `steps`; empty where the event has none.

    >>> bar({"step": 1, "steps": 4})
    '█████···············'
    """
    if not event.get("steps"):
        return ""
    filled = round(BAR_CELLS * min(1.0, event["step"] / event["steps"]))
    return "█" * filled + "·" * (BAR_CELLS - filled)


class JourneyDisplay:
    """Context manager whose `watch` method a `Journey` calls; everything goes to stderr."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.live: Any = None
        self.started = time.monotonic()
        self.announced: set[str] = set()
        self.last_line = 0.0

    def __enter__(self) -> "JourneyDisplay":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(stderr=True), refresh_per_second=4, transient=False)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def watch(self, journey: "Journey") -> None:
        """Draw the present state of `journey`."""
        if self.live is not None:
            self.live.update(self._table(journey))
        else:
            self._lines(journey)

    def _table(self, journey: "Journey") -> Any:
        from rich.table import Table

        title = f"{self.title}   {clock(time.monotonic() - self.started)}"
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
        for column in ("", "stage", "what happens", "", "time"):
            table.add_column(column, overflow="ellipsis", no_wrap=column != "what happens")
        for stage in journey.stages:
            run = journey.running.get(stage.name)
            if stage.name in journey.results:
                table.add_row("✓", stage.name, f"[dim]{stage.story}", "", clock(journey.seconds[stage.name]))
            elif run is not None:
                detail = f"{bar(run.event)} {describe({**run.event, 'stage': ''})}" if run.event else ""
                table.add_row(
                    "▸", f"[bold]{stage.name}", stage.story, detail, clock(time.monotonic() - run.started), style="cyan"
                )
            else:
                table.add_row("", f"[dim]{stage.name}", f"[dim]{stage.story}", "", "")
        return table

    def _lines(self, journey: "Journey") -> None:
        now = time.monotonic()
        for stage in journey.stages:
            name = stage.name
            if name in journey.running and f"start {name}" not in self.announced:
                self.announced.add(f"start {name}")
                self._say(f"▸ {name}: {stage.story}")
            if name in journey.results and f"done {name}" not in self.announced:
                self.announced.add(f"done {name}")
                self._say(f"✓ {name} ({clock(journey.seconds[name])})")
        if now - self.last_line >= LOG_EVERY_S and journey.running:
            for run in journey.running.values():
                if run.event:
                    self._say(f"  {describe(run.event)}")

    def _say(self, text: str) -> None:
        self.last_line = time.monotonic()
        sys.stderr.write(f"[{clock(self.last_line - self.started)}] {text}\n")
        sys.stderr.flush()
