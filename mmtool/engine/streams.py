"""Encoders of different modalities side by side on CUDA streams of their own.

Small kernels of one encoder then fill the multiprocessors that another leaves idle. Each side
stream first waits for the training stream, which wrote the parameters and received the batch; the
training stream waits for every side stream before features meet. Autograd runs the backward pass of
an operator on the stream of its forward pass and orders the two by itself. Tensors that cross
streams are marked as used by the other one, so that their memory is not handed out too early.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mmtool.data.transfer import tensors_of
from mmtool.models.multimodal import MultimodalModel
from mmtool.types import Batch, Modality

Timed = Callable[[Modality], AbstractContextManager[Any]]


def untimed(modality: Modality) -> AbstractContextManager[Any]:
    """Do not time an encoder."""
    del modality
    return nullcontext()


class EncoderStreams:
    """Runs the encoders of a model; one after the other without CUDA or when not asked for."""

    def __init__(self, modalities: tuple[Modality, ...], device: torch.device, *, is_used: bool):
        self._device = device
        self._streams: Mapping[Modality, torch.cuda.Stream] = {}
        if is_used and device.type == "cuda" and len(modalities) > 1:
            # The first encoder stays on the training stream.
            self._streams = {m: torch.cuda.Stream(device) for m in modalities[1:]}

    @property
    def is_active(self) -> bool:
        """Whether encoders run side by side."""
        return bool(self._streams)

    def encode(
        self,
        model: MultimodalModel,
        batch: Batch,
        hears: Tensor | None = None,
        *,
        timed: Timed = untimed,
    ) -> dict[Modality, Tensor]:
        """Give the features of every modality, ready on the calling thread's stream.

        `hears` is for encoders that exchange, which never run on streams of their own. `timed`
        is entered around each encoder, except where they exchange and run all at once.
        """
        if model.is_exchanging:
            return model.encode(batch, hears)
        features: dict[Modality, Tensor] = {}
        training: Any = torch.cuda.current_stream(self._device) if self._streams else None
        for modality, stream in self._streams.items():
            stream.wait_stream(training)
            with torch.cuda.stream(stream), timed(modality):
                features[modality] = model.encode_one(modality, batch)
            for tensor in tensors_of(batch):
                tensor.record_stream(stream)
        for modality in model.modalities:
            if modality not in self._streams:
                with timed(modality):
                    features[modality] = model.encode_one(modality, batch)
        for modality, stream in self._streams.items():
            training.wait_stream(stream)
            features[modality].record_stream(training)
        return {m: features[m] for m in model.modalities}
