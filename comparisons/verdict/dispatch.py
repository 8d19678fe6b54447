"""What sees every operation of torch, as cheaply as torch allows."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Dispatch(TorchDispatchMode):
    """A mode of which torch does not wrap each call once more, for which it would import its
    compiler as well."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
