"""Takes a model's features from its modules by their names, without a change of its code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mmtool.errors import RequestError
from mmtool.log.layout import Part, is_known, learn, modalities_in, rebuild
from mmtool.text import suggestion

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from mmtool.log.run import RunLog

MAX_CACHED = 4096
"""Samples of a split whose features are kept for the flip rates; further ones are passed over."""


def wrap(model: Module, *, encoders: Mapping[str, str], fusion: str | None = None) -> Watched:
    """Watch a model: `encoders` names a module for each modality, `fusion` the one giving logits.

    The fusion may take features one by one, in a list or a mapping, or concatenated; without it
    there are probes, but no flip rates.
    """
    return Watched(model, encoders, fusion)


class Watched:
    """A model whose features are taken as it runs; `close` lets go of it."""

    def __init__(self, model: Module, encoders: Mapping[str, str], fusion: str | None) -> None:
        self._names = tuple(encoders)
        self._fusion = None if fusion is None else module_named(model, fusion)
        self._call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._seen: dict[str, Tensor] = {}
        self._takers = {m: _Taker(self._seen, m) for m in encoders}
        self._layout: tuple[Part, Part] | None = None
        self._cached: dict[str, list[Tensor]] = {}
        self._labels: list[Tensor] = []
        self._handles = []
        for modality, path in encoders.items():
            module, taker = module_named(model, path), self._takers[modality]
            self._handles.append(module.register_forward_pre_hook(taker.begin))
            self._handles.append(module.register_forward_hook(taker.take))
        if self._fusion is not None:
            hook = self._fusion.register_forward_pre_hook(self._note_call, with_kwargs=True)
            self._handles.append(hook)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return self._names

    @property
    def features(self) -> dict[str, Tensor]:
        """Features of the last forward pass, detached."""
        return {m: self._seen[m].detach() for m in self._names if m in self._seen}

    def log_step(self, run: RunLog, labels: Any) -> None:
        """Show the features of the batch that the model has just seen to the probes."""
        self._learn_layout()
        for modality, features in self.features.items():
            if len(features) == len(labels):
                # Of a device that runs behind, the host's time would say nothing.
                is_host = features.device.type == "cpu"
                ms = {"forward_ms": self._takers[modality].ms} if is_host else {}
                run.modality(modality, features=features, labels=labels, **ms)

    def collect(self, labels: Any) -> None:
        """Keep the features of the evaluated batch that the model has just seen."""
        import torch

        kept = sum(map(len, self._labels))
        found = self.features
        if kept >= MAX_CACHED or len(found) < len(self._names):
            return
        self._learn_layout()
        self._labels.append(torch.as_tensor(labels).detach().cpu().clone())
        for modality, features in found.items():
            self._cached.setdefault(modality, []).append(features.cpu().clone())

    def log_epoch(self, run: RunLog, number: int, *, split: str = "val", **scores: Any) -> None:
        """Log what was collected since the last call; see `RunLog.epoch`."""
        import torch

        cached, labels = self._cached, self._labels
        self._cached, self._labels = {}, []
        if not labels:
            run.epoch(number, split=split, **scores)
            return
        features = {m: torch.cat(parts) for m, parts in cached.items()}
        fuse = self.fuse if self._layout is not None else None
        run.epoch(
            number, split=split, features=features, labels=torch.cat(labels), fuse=fuse, **scores
        )

    def fuse(self, features: Mapping[str, Any]) -> Any:
        """Give the logits of other features, asked of the fusion as the model asks it."""
        import torch

        if self._fusion is None or self._layout is None:
            raise RequestError("the model was wrapped without a fusion, or has not run yet")
        device = next((p.device for p in self._fusion.parameters()), torch.device("cpu"))
        was_training = [(m, m.training) for m in self._fusion.modules()]
        self._fusion.eval()
        try:
            with torch.no_grad():
                moved = {m: z.to(device) for m, z in features.items()}
                args, kwargs = (rebuild(part, moved) for part in self._layout)
                return first_tensor(self._fusion(*args, **kwargs))
        finally:
            for module, training in was_training:
                module.training = training

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._seen.clear()
        self._call = None

    def _note_call(self, _: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._call = (args, kwargs)

    def _learn_layout(self) -> None:
        """Find out, at the first pass that is logged, how the fusion is to be asked again."""
        if self._fusion is None or self._layout is not None:
            return
        args, kwargs = self._call or ((), {})
        layout = learn(args, self._seen), learn(kwargs, self._seen)
        held = modalities_in(layout[0]) | modalities_in(layout[1])
        if held != set(self._names) or not all(map(is_known, layout)):
            raise RequestError(
                "what the fusion is given is not made of the encoders' outputs alone",
                why="so it cannot be asked again with other features",
                fix="name encoders whose outputs go straight into the fusion, or give features= "
                "and fuse= to run.epoch",
            )
        self._layout = layout


def module_named(model: Module, path: str) -> Module:
    """Give a module by its dotted name, with a suggestion where there is none."""
    names: dict[str, Module] = dict(model.named_modules())
    if path not in names:
        raise RequestError(
            f"the model has no module {path!r}",
            why=suggestion(path, [n for n in names if n], otherwise="see model.named_modules()"),
        )
    return names[path]


def first_tensor(output: Any) -> Tensor:
    """Give the tensor of a module's output: itself, its logits or states, or its first."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    for name in ("logits", "pooler_output", "last_hidden_state"):
        found = getattr(output, name, None)
        if isinstance(found, torch.Tensor):
            return found
    values = output.values() if isinstance(output, Mapping) else output
    for value in values if isinstance(values, Iterable) else ():
        if isinstance(value, torch.Tensor):
            return value
    raise RequestError(f"a module gave a {type(output).__name__} without a tensor in it")


class _Taker:
    """Forward hooks that keep what an encoder gave and how long it took."""

    def __init__(self, seen: dict[str, Tensor], modality: str) -> None:
        self._seen = seen
        self._modality = modality
        self._began = 0.0
        self.ms = 0.0
        """Of the last pass, on the host."""

    def begin(self, _: Module, _args: Any) -> None:
        self._began = time.perf_counter()

    def take(self, _: Module, _args: Any, output: Any) -> None:
        self.ms = (time.perf_counter() - self._began) * 1000
        self._seen[self._modality] = first_tensor(output)
