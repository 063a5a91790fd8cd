"""Numba's types of vectors: their values are LLVM's vectors, so they live in registers (see `gridcompute.vectors`)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_constant
from numba.extending import models, register_model, typeof_impl

from gridcompute.vectors.lanes import Kind


class KindType(types.Opaque):
    """A kind, as a name in a kernel stands for it."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        super().__init__(name=f"kind {kind}")


class VectorType(types.Type):
    """A vector of a kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        super().__init__(name=str(kind))

    @property
    def key(self) -> Kind:
        """What makes two of them the same type."""
        return self.kind


class MaskType(types.Type):
    """A mask of so many lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"mask of {lanes}")


@register_model(KindType)
class _KindModel(models.OpaqueModel):
    pass


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, llvm(fe_type.kind))  # type: ignore[no-untyped-call]


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: MaskType) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), fe_type.lanes))  # type: ignore[no-untyped-call]


@typeof_impl.register(Kind)
def _typeof_kind(value: Kind, _: Any) -> KindType:
    return KindType(value)


@lower_constant(KindType)  # type: ignore[no-untyped-call, untyped-decorator]
def _constant_kind(context: Any, builder: Any, typ: Any, value: Any) -> Any:
    return context.get_dummy_value()


def llvm(kind: Kind) -> ir.VectorType:
    """LLVM's type of a kind's vectors."""
    return ir.VectorType(ir.IntType(kind.dtype.itemsize * 8), kind.lanes)


def signed(kind: Kind) -> bool:
    """Whether the lanes have a sign."""
    return kind.dtype.kind == "i"


def element(kind: Kind) -> Any:
    """Numba's type of a lane."""
    return getattr(types, kind.dtype.name)


def suits(kind: Kind, array: Any) -> bool:
    """Whether vectors of a kind are loaded from arrays of a numba type."""
    return isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C" and array.dtype == element(kind)
